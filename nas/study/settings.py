"""The settings of a study: sections that belong to no component, and all of them once checked."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import search_spaces
from latency_predictors import PredictorSettings
from nas.core.dataset import Dataset
from nas.core.errors import ConfigError, UnknownNameError
from nas.core.measurement import Device
from nas.core.objective import Constraint, Objective
from nas.core.recipe import Recipe
from nas.core.registry import nested
from nas.core.task import Task
from nas.devices.store import MeasurementStore
from nas.evaluation import EvaluationSettings
from nas.logging import LoggingSettings
from nas.network.space import SearchSpace
from nas.objectives.builtin import StoredSizeMb, TaskMetric
from nas.search import algorithms
from nas.search.adaptive_measurement import AdaptiveMeasurementSettings
from nas.search.algorithms import AlgorithmSettings
from nas.search.fidelity import FidelitySettings
from nas.search.schedule import Asynchronous, Schedule
from nas.search.stopping import HOUR_S, StopSettings
from nas.study.checking import component

MEASUREMENTS, PREDICTORS = RESERVED = ("measurements", "predictors")
"""Folders beside the studies that are none."""

EVALUATIONS = 48
"""Full trainings of a search for which neither their number nor a budget is given."""

MODES = ("batch", "async")
"""Of a search: in which order trials are told."""


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """Where trials are recorded.

    Attributes:
        url: Of a database; `None` for an SQLite file in the study's folder.
    """

    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Where candidates are trained.

    Attributes:
        address: Of a running cluster; `None` starts workers on this host.
    """

    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class GeneralSettings:
    """What belongs to no component.

    Attributes:
        name: Of the study and of its folder.
        seed: From which every stream of random numbers derives.
        budget: Time of the whole study, such as `15min`, `2h` or `8core-h` (core hours); `None` for
            no limit. Calibration, search and verification are planned into it.
        runs: Folder of studies.
        measurements: Folder of measurements, which studies share; `None` for `measurements` beside
            the studies.
        imports: The user's own modules.
        ledger: Where trials are recorded.
        ray: Where candidates are trained.
    """

    name: str
    seed: int = 0
    budget: str | None = None
    runs: str = "runs"
    measurements: str | None = None
    imports: tuple[str, ...] = ()
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    ray: RaySettings = field(default_factory=RaySettings)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError("name", self.name, "letters, digits, '.', '_' and '-'")
        if self.name in RESERVED:
            expected = f"another name: {self.runs}/{self.name} is no study"
            raise ConfigError("name", self.name, expected)
        if self.seed < 0:
            raise ConfigError("seed", self.seed, "0 or more")
        _check_texts("imports", self.imports)
        self.budget_s(1)

    def budget_s(self, cores: int) -> float | None:
        """Return the seconds of the budget where the study uses so many cores.

        Raises:
            ConfigError: It cannot be read.
        """
        if self.budget is None:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|core-h)", self.budget)
        if found is None or not 0 < float(found[1]) * HOUR_S < math.inf:
            expected = "a time such as 90s, 15min or 2h, or core hours such as 8core-h"
            raise ConfigError("budget", self.budget, expected)
        unit_s = {"s": 1.0, "min": 60.0, "h": 3600.0, "core-h": 3600.0 / cores}[found[2]]
        return float(found[1]) * unit_s

    @property
    def store(self) -> MeasurementStore:
        """The measurements."""
        beside = Path(self.runs) / MEASUREMENTS
        return MeasurementStore(Path(self.measurements or beside).expanduser())


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What to search for and how long.

    Attributes:
        evaluations: Full trainings at which the search ends; a partial one counts as its share.
            `None` for as many as fit into the budget, or 48 without one.
        stop: Further limits at which it ends.
        mode: `batch` tells trials in the order in which they were asked for, so that a search is
            exactly repeatable; `async` tells them as they end, so that no worker waits.
        lookahead: In a batch search, candidates pending at a time; at least the number of
            workers.
        objectives: Names of what to make small: objectives and metrics of the task.
        constraints: Limits such as `latency_ms <= 2` or `worst_class_error <= 20`.
        reference_point: Of the hypervolume, by objective; what is left out is derived: for a metric
            that of a trivial guess, for the others a tenth more than the largest of some random
            architectures and of those of the warm start. `None` derives all of it.
        warm_start: What is proposed first: names of published networks that lie in the space,
            `references` for all of these, `neighbours:NAME` for those that differ from one in a
            single choice, at most half of the evaluations, and names or folders of studies, whose
            fronts are.
        adaptive_measurement: When candidates are measured instead of predicted.
        algorithm: Name and settings of the search algorithm.
    """

    evaluations: int | None = None
    stop: StopSettings = field(default_factory=StopSettings)
    mode: str = "batch"
    lookahead: int = 8
    objectives: tuple[str, ...] = ("error", "latency_ms")
    constraints: tuple[str, ...] = ()
    reference_point: dict[str, float] | None = None
    warm_start: tuple[str, ...] = ()
    adaptive_measurement: AdaptiveMeasurementSettings = field(
        default_factory=AdaptiveMeasurementSettings
    )
    algorithm: AlgorithmSettings = nested(algorithms.registry, "guided")

    def schedule(self, workers: int) -> Schedule:
        """Return when a search on `workers` asks for candidates."""
        return Asynchronous(workers) if self.mode == "async" else Schedule(self.lookahead)

    def __post_init__(self) -> None:
        for name in ("evaluations", "lookahead"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"search.{name}", value, "1 or more")
        if self.mode not in MODES:
            raise UnknownNameError("search.mode", self.mode, MODES)
        for name in ("objectives", "constraints", "warm_start"):
            _check_texts(f"search.{name}", getattr(self, name))
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            got = list(self.objectives)
            raise ConfigError("search.objectives", got, "at least one objective, each once")
        for name, value in (self.reference_point or {}).items():
            setting = f"search.reference_point.{name}"
            if name not in self.objectives:
                among = "one of search.objectives:"
                raise UnknownNameError(setting, name, self.objectives, among)
            if not 0 < value < math.inf:
                raise ConfigError(setting, value, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class FinaliseSettings:
    """How the front is verified at the end.

    Attributes:
        limit: Most members of the front that are verified; 0 for none.
        picks: Further architectures of the search that are verified as these are: the first digits
            of an `arch_id`, or a condition on the search's values; see `StudyResults.pick`.
        seeds: How often each of them is trained and verified. The first network is the one that
            others are compared with and that is exported; of all, tables have mean and standard
            deviation.
        refit: Whether the front's picks (`knee`, `best`, `fastest`) are then trained once more, on
            train and validation images together, as an extra.
        recipe: How they are trained.
    """

    limit: int = 8
    picks: tuple[str, ...] = ()
    seeds: int = 1
    refit: bool = False
    recipe: Recipe = field(default_factory=lambda: Recipe.of("full"))

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError("finalise.limit", self.limit, "0 or more")
        if self.limit == 0 and (self.picks or self.seeds > 1):
            expected = "1 or more, as finalise.picks or finalise.seeds is set"
            raise ConfigError("finalise.limit", self.limit, expected)
        if self.seeds < 1:
            raise ConfigError("finalise.seeds", self.seeds, "1 or more")
        _check_texts("finalise.picks", self.picks)


@dataclass(frozen=True, kw_only=True)
class StudySettings(GeneralSettings):
    """The checked settings of a study; components are built, data is not loaded yet.

    Attributes:
        ledger_url: Of a database that answered; `None` for an SQLite file in the study's folder.
        objectives: What to make small, by name.
        limited: Further objectives that only a constraint refers to, by name.
        config: Every setting in plain values, as files may keep them: without a password.
    """

    ledger_url: str | None
    data: Dataset
    device: Device
    predictor: PredictorSettings
    fidelity: FidelitySettings
    evaluation: EvaluationSettings
    logging: LoggingSettings
    search: SearchSettings
    finalise: FinaliseSettings
    objectives: dict[str, Objective]
    limited: dict[str, Objective]
    constraints: tuple[Constraint, ...]
    config: Mapping[str, Any]

    @property
    def published(self) -> dict[str, str]:
        """What numbers are that others have published: text by column; empty of one's own."""
        return {**self.evaluation.published, **self.device.published}

    @property
    def evaluations(self) -> float:
        """Full trainings at which the search ends; infinite where the budget alone ends it."""
        without = EVALUATIONS if self.budget is None else math.inf
        return self.search.evaluations or without

    @property
    def limits(self) -> dict[str, Any]:
        """Everything at which the search ends."""
        stop = dataclasses.asdict(self.search.stop)
        return {"evaluations": self.search.evaluations, "budget": self.budget, **stop}

    @property
    def used(self) -> dict[str, Objective]:
        """Everything that is made small or limited, by name."""
        return {**self.objectives, **self.limited}

    @property
    def counts_stored(self) -> bool:
        """Whether the compressed size of networks is made small or limited."""
        return any(isinstance(objective, StoredSizeMb) for objective in self.used.values())

    def of_task(self, task: Task) -> StudySettings:
        """Return the same settings with the metrics among objectives and limits as `task` has them.

        Raises:
            ConfigError: The task has no such metric; names those that it has.
        """
        units = {metric.name: metric.unit for metric in task.metrics}

        def own(setting: str, used: Mapping[str, Objective]) -> dict[str, Objective]:
            for name, objective in used.items():
                if isinstance(objective, TaskMetric) and name not in units:
                    among = f"a metric of the data ({task.summary}):"
                    raise UnknownNameError(setting, name, units, among)
            return {
                name: dataclasses.replace(objective, unit=units[name])
                if isinstance(objective, TaskMetric)
                else objective
                for name, objective in used.items()
            }

        return dataclasses.replace(
            self,
            objectives=own("search.objectives", self.objectives),
            limited=own("search.constraints", self.limited),
        )

    def space(self, input_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
        """Build the search space for images of a shape and a number of classes."""
        return space_of(self.config, input_shape, num_classes)

    def calibration(
        self, space: SearchSpace, folder: Path, limit_s: float | None = None
    ) -> CalibrationSettings:
        """Return what the calibration for a study in `folder` depends on."""
        return CalibrationSettings(
            seed=self.seed,
            space=space,
            device=self.device,
            predictor=self.predictor,
            store=self.store,
            folder=folder,
            memory=any(objective.needs_memory for objective in self.used.values()),
            limit_s=limit_s,
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """The checked settings of a calibration.

    Attributes:
        seed: Of the choice of networks; equal seeds choose equal ones.
        store: What is in it is not measured again; an interrupted calibration goes on from it.
        folder: Receives the predictor and its samples.
        memory: Whether peak memory is measured and predicted as well.
        limit_s: Seconds that it may take; `None` for as many as all samples take.
    """

    seed: int
    space: SearchSpace
    device: Device
    predictor: PredictorSettings
    store: MeasurementStore
    folder: Path
    memory: bool
    limit_s: float | None = None


IMAGES = ("input_shape", "num_classes")
"""Settings of a search space that the data give."""


def space_of(
    config: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> SearchSpace:
    """Build a configuration's search space for images of a shape and a number of classes.

    Raises:
        ConfigError: Its settings cannot be used, or leave one network.
    """
    given = dict(zip(IMAGES, (input_shape, num_classes), strict=True))
    chosen = config["search_space"]
    space: SearchSpace = component(search_spaces.registry, chosen, "search_space", given)
    if not space.genes:
        fix = "its settings leave no choice"
        raise ConfigError("search_space", chosen["name"], "a space of two networks or more", fix)
    return space


def _check_texts(setting: str, values: tuple[str, ...]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(setting, value, "a list of texts")
