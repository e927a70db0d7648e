"""From a composed configuration to checked components.

Everything that can be wrong in a configuration is found here, before anything starts.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import latency_predictors
import search_spaces
from latency_predictors import PredictorSettings
from nas import data, devices, evaluation, objectives
from nas.core.errors import ConfigError
from nas.core.images import Dataset
from nas.core.measurement import Device
from nas.core.objective import Constraint, Objective
from nas.core.recipe import Recipe
from nas.core.registry import Registry
from nas.evaluation import EvaluationSettings
from nas.network.space import SearchSpace
from nas.search import algorithms
from nas.search.algorithms import AlgorithmSettings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What to search for and how long.

    Attributes:
        evaluations: Trials at which the search ends.
        lookahead: Candidates under way at a time; at least the number of workers keeps all busy.
        objectives: Names of what to make small.
        constraints: Limits such as `latency_ms <= 2`.
        reference_point: Of the hypervolume, by objective; what is left out is derived: for the
            error that of guessing, for the others the largest of some random architectures.
        algorithm: Name and settings of the search algorithm.
    """

    evaluations: int = 48
    lookahead: int = 8
    objectives: tuple[str, ...] = ("error", "latency_ms")
    constraints: tuple[str, ...] = ()
    reference_point: dict[str, float] = field(default_factory=dict)
    algorithm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("evaluations", "lookahead"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.{name}", getattr(self, name), "1 or more")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            got = list(self.objectives)
            raise ConfigError("search.objectives", got, "at least one objective, each once")


@dataclass(frozen=True, kw_only=True)
class FinaliseSettings:
    """How the front is verified at the end.

    Attributes:
        limit: Most members of the front that are retrained; 0 for none.
        recipe: How they are trained, on train and validation images together.
    """

    limit: int = 8
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.limit < 0:
            raise ConfigError("finalise.limit", self.limit, "0 or more")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """The checked settings of a study; components are built, data is not loaded yet."""

    name: str
    seed: int
    runs: str
    ledger_url: str | None
    ray_address: str | None
    data: Dataset
    device: Device
    predictor: PredictorSettings
    algorithm: AlgorithmSettings
    evaluation: EvaluationSettings
    search: SearchSettings
    finalise: FinaliseSettings
    objectives: dict[str, Objective]
    limited: dict[str, Objective]
    constraints: tuple[Constraint, ...]
    config: DictConfig

    def space(self, input_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
        """Build the search space for images of a shape and a number of classes."""
        given = {"input_shape": input_shape, "num_classes": num_classes}
        return _component(search_spaces.registry, self.config.search_space, "search_space", given)


def read(config: DictConfig) -> StudySettings:
    """Check a composed configuration.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
    """
    for module in config.imports:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                "imports", module, "a module that can be imported", str(error)
            ) from error
    name = config.name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError("name", name, "letters, digits, '.', '_' and '-'")
    if not isinstance(config.seed, int) or config.seed < 0:
        raise ConfigError("seed", config.seed, "a whole number, 0 or more")
    search = _structured(SearchSettings, config.search, "search")
    constraints = tuple(Constraint.parse(text) for text in search.constraints)
    chosen = {name: objectives.get(name) for name in search.objectives}
    limits = {c.objective: objectives.get(c.objective) for c in constraints}
    for objective in search.reference_point:
        if objective not in chosen:
            raise ConfigError("search.reference_point", objective, f"one of {sorted(chosen)}")
    settings = StudySettings(
        name=name,
        seed=config.seed,
        runs=config.runs,
        ledger_url=config.ledger.url,
        ray_address=config.ray.address,
        data=_component(data.registry, config.data, "data"),
        device=_component(devices.registry, config.device, "device"),
        predictor=_component(
            latency_predictors.registry, config.latency_predictor, "latency_predictor"
        ),
        algorithm=_component(algorithms.registry, config.search.algorithm, "search.algorithm"),
        evaluation=_component(evaluation.registry, config.evaluation, "evaluation"),
        search=search,
        finalise=_structured(FinaliseSettings, config.finalise, "finalise"),
        objectives=chosen,
        limited={name: objective for name, objective in limits.items() if name not in chosen},
        constraints=constraints,
        config=config,
    )
    settings.space((1, 32, 32), 10)
    return settings


def _component(
    registry: Registry[T], node: Any, path: str, given: dict[str, Any] | None = None
) -> T:
    """Build the component that `node` names, with type checks by OmegaConf."""
    fields = dict(OmegaConf.to_container(node, resolve=True)) if node else {}
    name = fields.pop("name", None)
    cls = registry.component(str(name))
    return _structured(cls, OmegaConf.create({**fields, **(given or {})}), path)


def _structured(cls: type[T], node: Any, path: str) -> T:
    try:
        checked = OmegaConf.merge(_writable(OmegaConf.structured(cls)), node)
        built: T = OmegaConf.to_object(checked)
    except OmegaConfBaseException as error:
        line = str(error).splitlines()[0]
        key = getattr(error, "full_key", None) or getattr(error, "key", "")
        got = OmegaConf.select(node, str(key), default=None) if key else None
        raise ConfigError(f"{path}.{key}", got, _expectation(line, cls)) from error
    return built


def _writable(schema: Any) -> Any:
    """Lift the write protection that a frozen dataclass gives to its schema."""
    OmegaConf.set_readonly(schema, False)
    for key in schema:
        if isinstance(schema._get_node(key), DictConfig) and schema[key] is not None:
            _writable(schema[key])
    return schema


def _expectation(line: str, cls: type) -> str:
    if "not in" in line:
        return "one of the settings " + ", ".join(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    return f"another value ({line})"
