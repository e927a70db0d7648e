"""From a composed configuration to checked settings.

Everything that can be wrong in a configuration is found here, before anything starts. A composed
configuration says what differs from the defaults; those stand in the dataclasses and are filled in
here, so that a component's settings are declared once.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

import latency_predictors
import search_spaces
from nas import data, devices, evaluation, logging, objectives, tables, tasks
from nas.core.errors import ConfigError, UnknownNameError
from nas.core.files import check_folder
from nas.core.measurement import FP32, Device
from nas.core.objective import Constraint, Objective
from nas.core.recipe import OPTIMIZERS, PRESETS, Recipe
from nas.core.registry import Registry
from nas.data.published import Published
from nas.devices.table import TableDevice
from nas.evaluation import proxies
from nas.evaluation.tabular import TabularSettings
from nas.objectives.builtin import StoredSizeMb, TaskMetric
from nas.objectives.microcontroller import LatencyMsEstimated
from nas.objectives.proxy import ProxyRank
from nas.search import fidelity
from nas.study.bases import with_base
from nas.study.checking import (
    completed,
    completed_component,
    component,
    import_modules,
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
    "logging": logging.registry,
}
"""Sections that hold one component."""

SECTIONS: dict[str, type] = {"search": SearchSettings, "finalise": FinaliseSettings}
"""Sections that hold several settings."""

GENERAL = tuple(f.name for f in dataclasses.fields(GeneralSettings))
"""Settings that belong to no section."""


def read(config: DictConfig) -> StudySettings:
    """Check a composed configuration.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
        LedgerError: The ledger's database cannot be reached.
    """
    values = with_base(resolved(config))
    general = _general(values)
    search = structured(SearchSettings, values.get("search"), "search")
    constraints = tuple(Constraint.parse(text) for text in search.constraints)
    device = _component(values, "device")
    chosen = {name: _objective(name, device) for name in search.objectives}
    limits = {c.objective: _objective(c.objective, device) for c in constraints}
    parts = {
        "data": _component(values, "data"),
        "predictor": _component(values, "latency_predictor"),
        "fidelity": _component(values, "fidelity"),
        "logging": _component(values, "logging"),
    }
    parts |= _with_recipes(values)
    url = None if general.ledger.url is None else reachable(general.ledger.url)
    for name in IMAGES:
        if name in values["search_space"]:
            got = values["search_space"][name]
            raise ConfigError(f"search_space.{name}", got, "no value: a search takes the data's")
    # Last, as the space's networks load PyTorch.
    values = with_presets(values)
    parts |= _with_recipes(values)
    complete = completed_configuration(values)
    complete["ledger"]["url"] = None if url is None else recordable(url)
    settings = StudySettings(
        **vars(general),
        ledger_url=url,
        device=device,
        search=search,
        objectives=chosen,
        limited={name: objective for name, objective in limits.items() if name not in chosen},
        constraints=constraints,
        config=complete,
        **parts,
    )
    settings.fidelity.check(settings.objectives)
    if settings.evaluation.inherits and len(settings.fidelity.fidelities) > 1:
        fix = "partial trainings would begin with weights that were trained further"
        raise ConfigError("evaluation.inherit", True, "false, or fidelity=full", fix)
    _check_tables(settings)
    _check_proxy(settings)
    _check_without_training(settings)
    _check_scores(settings)
    _check_precisions(settings)
    return settings


def read_calibration(config: DictConfig) -> CalibrationSettings:
    """Check the parts of a composed configuration that a calibration depends on.

    The search space may say what its images are (`input_shape`, `num_classes`), else the data do.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
        DataError: The data are needed and cannot be read.
    """
    values = with_base(resolved(config))
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
    search = structured(SearchSettings, values.get("search"), "search")
    used = [*search.objectives, *(Constraint.parse(text).objective for text in search.constraints)]
    name = f"{values['search_space']['name']}-{values['device']['name']}"
    folder = Path(out or Path(general.runs) / PREDICTORS / name).expanduser()
    check_folder("out", folder)
    return CalibrationSettings(
        seed=general.seed,
        space=space,
        device=device,
        predictor=predictor,
        store=general.store,
        folder=folder,
        memory=any(_named(name).needs_memory for name in used),
    )


def with_presets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration whose recipes have every value of their preset.

    A preset depends on the networks' family, and whether images are mirrored on the data set.

    Raises:
        UnknownNameError: No search space, data set, evaluation or preset has the name.
    """
    sections = dict(values)
    classes = {
        name: COMPONENTS[name].component(str((values.get(name) or {}).get("name")))
        for name in ("search_space", "data")
    }
    family = classes["search_space"].family
    mirrors = (values["data"] or {}).get("mirrors", classes["data"].mirrors)
    for (section, name), default in _recipes(values).items():
        changes = _given_recipe(values, section, name)
        preset = changes.get("preset", default.preset)
        if preset not in PRESETS:
            raise UnknownNameError(f"{section}.{name}.preset", preset, PRESETS)
        part = changes.get("optimizer")
        optimizer = part.get("name") if isinstance(part, Mapping) else None
        kept = {"name": optimizer} if optimizer in OPTIMIZERS else {}
        own = Recipe.of(preset, family, augmentation={"flip": mirrors}, optimizer=kept)
        recipe = _changed(dataclasses.asdict(own), changes)
        sections[section] = {**dict(sections.get(section) or {}), name: recipe}
    return sections


def _recipes(values: Mapping[str, Any]) -> dict[tuple[str, str], Recipe]:
    """Return the defaults of the settings that are recipes, by section and name.

    Raises:
        UnknownNameError: No evaluation has the name that is set.
    """
    evaluation = str((values.get("evaluation") or {}).get("name"))
    sections = {
        "evaluation": COMPONENTS["evaluation"].component(evaluation),
        "finalise": FinaliseSettings,
    }
    return {
        (section, spec.name): cast("Any", spec.default_factory)()
        for section, cls in sections.items()
        for spec in dataclasses.fields(cls)
        if spec.type == "Recipe"
    }


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with changes."""
    merged = dict(values)
    for name, value in changes.items():
        old: Any = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = _changed(old, value) if both else value
    return merged


def completed_configuration(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of a resolved configuration, defaults filled in.

    Raises:
        ConfigError: Names the setting, what it got, what was expected.
    """
    general = completed(GeneralSettings, {k: values[k] for k in GENERAL if k in values}, "")
    return general | {name: completed_section(values, name) for name in (*COMPONENTS, *SECTIONS)}


def completed_section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return every setting of one of `COMPONENTS` and `SECTIONS`; see `completed_configuration`."""
    if name in SECTIONS:
        return completed(SECTIONS[name], values.get(name), name)
    later = IMAGES if name == "search_space" else ()
    return completed_component(COMPONENTS[name], values.get(name), name, later)


def every_setting(config: DictConfig) -> dict[str, Any]:
    """Return every setting of a composed configuration, defaults filled in; nothing is built.

    The ledger's URL is as the user wrote it: an interpolation in it may stand for a password.

    Raises:
        HwnasError: A setting cannot be used.
    """
    url = _written_url(config)
    if url is not None:
        OmegaConf.update(config := config.copy(), "ledger.url", None)
    values = with_base(resolved(config))
    out = values.pop("out", None)
    _general(values)
    complete = completed_configuration(with_presets(values))
    complete["ledger"]["url"] = url
    return complete if out is None else {"out": out, **complete}


def _given_recipe(values: Mapping[str, Any], section: str, name: str) -> Mapping[str, Any]:
    """Return what a section sets of a recipe.

    Raises:
        ConfigError: It is no settings, such as the name of a preset.
    """
    given = (values.get(section) or {}).get(name) or {}
    if not isinstance(given, Mapping):
        setting = f"{section}.{name}"
        fix = f"a preset is chosen by {setting}.preset=NAME"
        raise ConfigError(setting, given, "settings", fix)
    return given


def _with_recipes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Build the sections that hold recipes."""
    for section, name in _recipes(values):
        _given_recipe(values, section, name)
    return {
        "evaluation": _component(values, "evaluation"),
        "finalise": structured(FinaliseSettings, values.get("finalise"), "finalise"),
    }


def _component(values: Mapping[str, Any], section: str) -> Any:
    name = str((values.get(section) or {}).get("name"))
    if section == "data" and name not in data.names() and Path(name).is_dir():
        fix = f"a folder of images is read by data=image_folder data.path={name}"
        raise ConfigError("data", name, f"one of {', '.join(data.names())}", fix)
    return component(COMPONENTS[section], values.get(section), section)


def _general(values: Mapping[str, Any]) -> GeneralSettings:
    """Build the general settings, and import the user's modules; refuse unknown sections."""
    known = (*GENERAL, *COMPONENTS, *SECTIONS)
    for section in values:
        if section not in known:
            holders = [f"{part}.{section}" for part, names in _fields(values) if section in names]
            if not holders:
                raise UnknownNameError("configuration", section, known)
            holders += difflib.get_close_matches(section, known, n=1)
            fix = f"did you mean {' or '.join(map(repr, holders))}?"
            raise ConfigError("configuration", section, f"one of {', '.join(sorted(known))}", fix)
    name = values.get("name")
    if isinstance(name, int | float):
        # The command line takes 359_0 for the number 3590, which would be another name.
        fix = """quote a name that reads as a number: 'name="359_0"'"""
        raise ConfigError("name", name, "a text", fix)
    general = structured(GeneralSettings, {k: values[k] for k in GENERAL if k in values}, "")
    if not general.runs:
        raise ConfigError("runs", general.runs, "a folder")
    for setting in ("runs", "measurements"):
        if (folder := getattr(general, setting)) is not None:
            check_folder(setting, Path(folder).expanduser())
    import_modules(general.imports)
    return general


def _fields(values: Mapping[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """Return the names of the settings of each section, as far as its component is known."""
    for section, registry in COMPONENTS.items():
        name = str((values.get(section) or {}).get("name"))
        if name in registry.names():
            fields = dataclasses.fields(registry.component(name))
            yield section, {spec.name for spec in fields}
    for section, cls in SECTIONS.items():
        yield section, {spec.name for spec in dataclasses.fields(cls)}


def _objective(name: str, device: Device) -> Objective:
    """Return an objective as a device knows it: `latency_ms` of a table is the published one.

    Raises:
        ConfigError: The device cannot tell its value.
    """
    found = _named(name)
    if found.needs_estimates or (device.estimated and found.needs_calibration):
        if name not in device.estimated:
            told = ", ".join(device.estimated) or "what it measures, such as latency_ms"
            expected = f"with this device {told}"
            fix = "device=mcu and device=ethos_u tell sram_kb and flash_kb, ethos_u latency_ms too"
            raise ConfigError("search.objectives", name, expected, fix)
        return LatencyMsEstimated() if found.needs_predictor else found
    if isinstance(device, TableDevice):
        if found.needs_memory:
            expected = "what the device's table or the network itself tells"
            raise ConfigError("search.objectives", name, expected, "use counted_memory_mb")
        return objectives.get("latency_ms_published") if found.needs_predictor else found
    if found.needs_table:
        expected = "latency_ms, which is published where device=table"
        raise ConfigError("search.objectives", name, expected)
    return found


def _named(name: str) -> Objective:
    """Return an objective, or a metric of some task as one; see `StudySettings.of_task`."""
    registered = objectives.names()
    metrics = {m.name: m.unit for task in tasks.names() for m in tasks.component(task).metrics}
    if name in registered:
        return objectives.get(name)
    if name not in metrics:
        raise UnknownNameError("objective", name, {*registered, *metrics})
    return TaskMetric(column=name, unit=metrics[name])


def _check_tables(settings: StudySettings) -> None:
    """Refuse settings that do not go together where a table takes part.

    Raises:
        ConfigError: Names the setting and what would do.
    """
    evaluation, data, device = settings.evaluation, settings.data, settings.device
    names = {section: settings.config[section]["name"] for section in COMPONENTS}
    if isinstance(evaluation, TabularSettings):
        if not isinstance(data, Published):
            expected = "published, as evaluation=tabular answers for a table's data set"
            raise ConfigError("data", names["data"], expected)
        for name in ("table", "dataset"):
            got, expected = getattr(evaluation, name), getattr(data, name)
            if got != expected:
                raise ConfigError(f"evaluation.{name}", got, f"{expected}, as data.{name} says")
        _check_published_metrics(settings)
        _check_shares(settings.fidelity.fidelities, evaluation)
        if settings.budget is not None:
            expected = "null: a table answers in simulated time"
            fix = "limit that by search.stop.wall_clock_s"
            raise ConfigError("budget", settings.budget, expected, fix)
    elif isinstance(data, Published):
        fix = "data=published has no images"
        raise ConfigError("evaluation", names["evaluation"], "tabular", fix)
    for section, answering in (("evaluation", evaluation), ("device", device)):
        if isinstance(answering, TabularSettings | TableDevice):
            _check_space(section, answering.table, settings.config["search_space"])
    if settings.published and settings.finalise.limit:
        expected = "0: of a published table no network can be trained or measured"
        raise ConfigError("finalise.limit", settings.finalise.limit, expected)


def _check_proxy(settings: StudySettings) -> None:
    """Refuse metrics that an evaluation does not have: of a training, or of a proxy.

    Raises:
        ConfigError: Names the setting and what would do.
    """
    # A field says it: the class would load PyTorch.
    by_proxy = "proxy" in settings.config["evaluation"]
    for name, objective in settings.used.items():
        section = "objectives" if name in settings.objectives else "constraints"
        if by_proxy and isinstance(objective, StoredSizeMb):
            expected = "model_size_mb, as evaluation=proxy trains nothing in the search"
            raise ConfigError(f"search.{section}", name, expected)
        if by_proxy and isinstance(objective, TaskMetric):
            expected = "proxy_rank in place of it, as evaluation=proxy trains nothing in the search"
            fix = "the front has its errors at the end: 'search.objectives=[proxy_rank,latency_ms]'"
            raise ConfigError(f"search.{section}", name, expected, fix)
        if not by_proxy and isinstance(objective, ProxyRank):
            expected = "a metric of a training, such as error, or evaluation=proxy"
            raise ConfigError(f"search.{section}", name, expected)


def _check_scores(settings: StudySettings) -> None:
    """Check the proxy whose scores `guided` learns.

    Raises:
        ConfigError: There is none of its name, or no image to score networks on.
    """
    name = getattr(settings.search.algorithm, "proxy", "")
    if name and name not in proxies.names():
        raise UnknownNameError("search.algorithm.proxy", name, proxies.names())
    if name and isinstance(settings.data, Published):
        expected = "empty, as data=published has no images to score networks on"
        raise ConfigError("search.algorithm.proxy", name, expected)


def _check_precisions(settings: StudySettings) -> None:
    """Refuse precisions of layers that the device's setting or its runtime contradicts.

    Raises:
        ConfigError: The device has one for all layers, or its runtime runs all in one precision.
    """
    of_layers = settings.config["search_space"].get("precisions") or [FP32]
    of_all = settings.config["device"].get("precision", FP32)
    if of_all != FP32 and list(of_layers) != [FP32]:
        expected = f"{FP32}, where search_space.precisions has those of layers: {list(of_layers)}"
        raise ConfigError("device.precision", of_all, expected)
    runtime = getattr(settings.device, "runtime", None)
    if runtime is not None and list(of_layers) != [FP32] and not runtime.mixes_precisions:
        name = settings.config["device"]["runtime"]["name"]
        raise ConfigError("search_space.precisions", list(of_layers), f"[{FP32}] with {name}")


def _check_without_training(settings: StudySettings) -> None:
    """Refuse what rests on the time of candidates' trainings where none is trained.

    Raises:
        ConfigError: Names the setting and what would do.
    """
    evaluation = settings.config["evaluation"]
    name = evaluation["name"]
    if not {"proxy", "strategy"}.intersection(evaluation):
        return
    rungs = settings.fidelity.fidelities
    if len(rungs) > 1 and "proxy" in evaluation:
        expected = "full, as evaluation=proxy trains no candidate, in part or whole"
        raise ConfigError("fidelity", settings.config["fidelity"]["name"], expected)
    if len(rungs) > 2:
        expected = "two shares: the first is judged by shared weights, the second, 1, trained"
        raise ConfigError("fidelity.rungs", list(rungs), expected)
    if len(rungs) == 1 and "strategy" in evaluation:
        recipe = cast("Any", settings.evaluation).stand_alone
        family = (
            COMPONENTS["search_space"].component(settings.config["search_space"]["name"]).family
        )
        unset = Recipe.of("fast", family, augmentation={"flip": recipe.augmentation.flip})
        if recipe != unset:
            expected = "no value where no candidate is promoted to a training of its own"
            fix = "set fidelity=mo_asha 'fidelity.rungs=[0.05,1]', or leave it out"
            raise ConfigError("evaluation.stand_alone", "settings", expected, fix)
    if settings.budget is not None:
        expected = f"null, as evaluation={name} does not tell how long the front's training is"
        fix = "limit the search by search.evaluations or search.stop, the front by finalise.limit"
        raise ConfigError("budget", settings.budget, expected, fix)


def _check_published_metrics(settings: StudySettings) -> None:
    """Refuse metrics that a published table does not have."""
    for name, objective in settings.used.items():
        if isinstance(objective, TaskMetric | StoredSizeMb) and name != "error":
            section = "objectives" if name in settings.objectives else "constraints"
            raise ConfigError(f"search.{section}", name, "error, a table's only metric")


def _check_space(section: str, name: str, space: Mapping[str, Any]) -> None:
    """Refuse a search space, as its settings name it, that is not the one of a table."""
    table = tables.get(name)
    if space["name"] != table.space:
        expected = f"{table.space}, of which {section}.table={name} holds the networks"
        raise ConfigError("search_space", space["name"], expected)
    for setting, value in table.space_settings.items() if table.sample else ():
        if space[setting] != value:
            expected = f"{value}, as {section}.table={name} holds a sample of the space"
            raise ConfigError(f"search_space.{setting}", space[setting], expected)


def _check_shares(shares: Sequence[float], evaluation: TabularSettings) -> None:
    """Refuse shares of the full training of which a table holds no result."""
    whole = evaluation.epochs
    splits = tables.get(evaluation.table).dataset(evaluation.dataset).splits
    for share in shares:
        epochs = round(share * whole)
        if epochs not in splits or (share < 1 and epochs == whole):
            published = [n / whole for n in splits if n < whole] + [1.0]
            expected = f"shares of {whole} epochs that are published: {published}"
            raise ConfigError("fidelity.rungs", share, expected)


def _written_url(config: DictConfig) -> str | None:
    """Return the ledger's URL as the user wrote it, its interpolations not resolved."""
    values = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    url = (values.get("ledger") or {}).get("url")
    return None if url is None else str(url)


def reachable(url: str) -> str:
    """Return `url`, the path of an SQLite file made absolute, after the database has answered.

    Raises:
        ConfigError: The URL names no file in a folder that exists, has settings of SQLite behind
            the `?`, or its password there, where messages would show it.
        LedgerError: The URL is of an unknown kind, or the database cannot be reached or read.
    """
    # Optuna and SQLAlchemy take a while to load.
    import sqlalchemy

    from nas.results.database import engine, engine_url, sqlite_url, translated

    with translated(url):
        parsed = engine_url(url)
        if any("password" in name.lower() for name in parsed.query):
            expected = "USER:PASSWORD@HOST, or the password in PGPASSWORD"
            raise ConfigError("ledger.url", "a password behind the '?'", expected)
        if parsed.get_backend_name() == "sqlite":
            if parsed.query:
                expected = "sqlite:///FILE without a '?', which is %3F in the name of a file"
                raise ConfigError("ledger.url", url, expected)
            file = Path(parsed.database or "").expanduser().absolute()
            if parsed.database in (None, "", ":memory:") or not file.parent.is_dir():
                expected = "sqlite:///FILE, the file in a folder that exists"
                raise ConfigError("ledger.url", url, expected)
            url = sqlite_url(file)
            if not file.exists():
                return url
        sqlalchemy.inspect(engine(url)).get_table_names()
    return url


def recordable(url: str) -> str:
    """Return what files may keep of a ledger's URL: no password."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if parsed.password is None:
        return url
    return parsed._replace(password=None).render_as_string(hide_password=False)
