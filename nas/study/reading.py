"""From a composed configuration to checked settings.

Everything that can be wrong in a configuration is found here, before anything starts. A composed
configuration says what differs from the defaults; those stand in the dataclasses and are filled in
here, so that a component's settings are declared once.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf

import latency_predictors
import search_spaces
from nas import data, devices, evaluation, objectives
from nas.core.errors import ConfigError
from nas.core.objective import Constraint, Objective
from nas.core.registry import Registry, nested_registries
from nas.search import fidelity
from nas.study import published
from nas.study.checking import (
    completed,
    completed_component,
    component,
    import_modules,
    meanings,
    resolved,
    structured,
)
from nas.study.settings import (
    IMAGES,
    PREDICTORS,
    CalibrationSettings,
    FinaliseSettings,
    GeneralSettings,
    SearchSettings,
    StudySettings,
    space_of,
)

COMPONENTS: dict[str, Registry[Any]] = {
    "search_space": search_spaces.registry,
    "data": data.registry,
    "device": devices.registry,
    "latency_predictor": latency_predictors.registry,
    "fidelity": fidelity.registry,
    "evaluation": evaluation.registry,
}
"""Sections that hold one component."""

SECTIONS: dict[str, type] = {"search": SearchSettings, "finalise": FinaliseSettings}
"""Sections that hold several settings."""

_GENERAL = tuple(f.name for f in dataclasses.fields(GeneralSettings))
_KNOWN = (*_GENERAL, *COMPONENTS, *SECTIONS)


def read(config: DictConfig) -> StudySettings:
    """Check a composed configuration.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
        LedgerError: The ledger's database cannot be reached.
    """
    values = resolved(config)
    general = _general(values)
    search = structured(SearchSettings, values.get("search"), "search")
    constraints = tuple(Constraint.parse(text) for text in search.constraints)
    device = _component(values, "device")
    chosen = {name: published.objective(name, device) for name in search.objectives}
    limits = {c.objective: published.objective(c.objective, device) for c in constraints}
    parts = {
        "data": _component(values, "data"),
        "predictor": _component(values, "latency_predictor"),
        "fidelity": _component(values, "fidelity"),
        "evaluation": _component(values, "evaluation"),
        "finalise": structured(FinaliseSettings, values.get("finalise"), "finalise"),
    }
    url, recorded = _ledger_urls(config, general.ledger.url)
    for name in IMAGES:
        if name in values["search_space"]:
            got = values["search_space"][name]
            raise ConfigError(f"search_space.{name}", got, "no value: a search takes the data's")
    # Last, as it loads the space's networks and with them PyTorch.
    complete = completed_configuration(values)
    complete["ledger"]["url"] = recorded
    settings = StudySettings(
        name=general.name,
        seed=general.seed,
        runs=general.runs,
        store=general.store,
        imports=general.imports,
        ledger_url=url,
        ray_address=general.ray.address,
        device=device,
        search=search,
        objectives=chosen,
        limited={name: objective for name, objective in limits.items() if name not in chosen},
        constraints=constraints,
        config=complete,
        **parts,
    )
    settings.fidelity.check(settings.objectives)
    published.check(settings)
    return settings


def read_calibration(config: DictConfig) -> CalibrationSettings:
    """Check the parts of a composed configuration that a calibration depends on.

    The search space may say what its images are (`input_shape`, `num_classes`), else the data do.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
        DataError: The data are needed and cannot be read.
    """
    values = resolved(config)
    out = values.pop("out", None)
    general = _general(values)
    device = _component(values, "device")
    if device.published_ms is not None:
        expected = "a device that measures"
        fix = "a published table is exact: a search reads it and needs no predictor"
        raise ConfigError("device", values["device"]["name"], expected, fix)
    predictor = _component(values, "latency_predictor")
    completed_component(search_spaces.registry, values["search_space"], "search_space", IMAGES)
    missing = [name for name in IMAGES if values["search_space"].get(name) is None]
    if len(missing) == 1:
        expected = "a value, or neither this nor the other of " + ", ".join(IMAGES)
        raise ConfigError(f"search_space.{missing[0]}", None, expected)
    if missing:
        splits = _component(values, "data").search_splits()
        space = space_of(values, splits.input_shape, splits.task.output_size)
    else:
        space = _component(values, "search_space")
    name = f"{values['search_space']['name']}-{values['device']['name']}"
    return CalibrationSettings(
        seed=general.seed,
        space=space,
        device=device,
        predictor=predictor,
        store=general.store,
        folder=Path(out or Path(general.runs) / PREDICTORS / name).expanduser(),
        memory=any(objective.needs_memory for objective in _objectives(values)),
    )


def completed_configuration(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of a resolved configuration, defaults filled in.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
    """
    general = completed(GeneralSettings, {k: values[k] for k in _GENERAL if k in values}, "")
    return general | {name: completed_section(values, name) for name in (*COMPONENTS, *SECTIONS)}


def completed_section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return every setting of one of `COMPONENTS` and `SECTIONS`; see `completed_configuration`."""
    if name in SECTIONS:
        return completed(SECTIONS[name], values.get(name), name)
    later = IMAGES if name == "search_space" else ()
    return completed_component(COMPONENTS[name], values.get(name), name, later)


def explained(config: DictConfig) -> str:
    """Return every setting as YAML, each with its meaning as a comment.

    Interpolations in the ledger's URL are left as they are: they may stand for a password.

    Raises:
        HwnasError: A setting cannot be used.
    """
    if OmegaConf.select(config, "ledger.url", default=None) is not None:
        written = _written_url(config)
        config = OmegaConf.merge(config, {"ledger": {"url": None}})  # type: ignore[assignment]
    else:
        written = None
    values = resolved(config)
    out = values.pop("out", None)
    _general(values)
    complete = completed_configuration(values)
    complete["ledger"]["url"] = written
    lines = [] if out is None else [f"out: {out}"]
    general = {name: complete[name] for name in _GENERAL}
    lines += _explained(GeneralSettings, general, "")
    for name, registry in COMPONENTS.items():
        lines += [f"{name}:", *_explained_component(registry, complete[name], "  ")]
    for name, cls in SECTIONS.items():
        lines += [f"{name}:", *_explained(cls, complete[name], "  ")]
    return "\n".join(lines) + "\n"


def _explained(cls: type, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    meaning, registries = meanings(cls), nested_registries(cls)
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        comment = f"  # {meaning[name].partition('. ')[0].rstrip('.')}" if name in meaning else ""
        if name in registries:
            yield f"{indent}{name}:{comment}"
            yield from _explained_component(registries[name], value, indent + "  ")
        elif dataclasses.is_dataclass(hints.get(name)) and value is not None:
            yield f"{indent}{name}:{comment}"
            yield from _explained(cast("type", hints[name]), value, indent + "  ")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20).splitlines()[0]
            yield f"{indent}{name}: {text}{comment}"


def _explained_component(
    registry: Registry[Any], values: Mapping[str, Any], indent: str
) -> Iterator[str]:
    cls = registry.component(values["name"])
    summary = (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")
    yield f"{indent}name: {values['name']}  # {summary}"
    fields = {name: value for name, value in values.items() if name != "name"}
    yield from _explained(cls, fields, indent)


def _component(values: Mapping[str, Any], section: str) -> Any:
    return component(COMPONENTS[section], values.get(section), section)


def _general(values: Mapping[str, Any]) -> GeneralSettings:
    """Build the general settings, and import the user's modules; refuse unknown sections."""
    for section in values:
        if section not in _KNOWN:
            raise ConfigError("configuration", section, "one of " + ", ".join(_KNOWN))
    name = values.get("name")
    if isinstance(name, int | float):
        # The command line takes 359_0 for the number 3590, which would be another name.
        fix = """quote a name that reads as a number: 'name="359_0"'"""
        raise ConfigError("name", name, "a text", fix)
    general = structured(GeneralSettings, {k: values[k] for k in _GENERAL if k in values}, "")
    import_modules(general.imports)
    return general


def _objectives(values: Mapping[str, Any]) -> list[Objective]:
    """Return what a search minimises or limits."""
    search = structured(SearchSettings, values.get("search"), "search")
    limited = [Constraint.parse(text).objective for text in search.constraints]
    return [objectives.get(name) for name in dict.fromkeys([*search.objectives, *limited])]


def _ledger_urls(config: DictConfig, url: str | None) -> tuple[str | None, str | None]:
    """Return the URL of a database that answered, and what files may keep of it."""
    if url is None:
        return None, None
    # Optuna and SQLAlchemy take a while to load.
    from nas.study.ledger_url import reachable, recordable

    url = reachable(url)
    return url, recordable(_written_url(config), url)


def _written_url(config: DictConfig) -> str:
    """Return the ledger's URL as the user wrote it, its interpolations not resolved."""
    values = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    return str(values["ledger"]["url"])
