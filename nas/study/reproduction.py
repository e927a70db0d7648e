"""The command that searches again as a study did."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import search_spaces
from nas.core.errors import HwnasError
from nas.core.records import decoding
from nas.results.study import StudyResults
from nas.study.composition import compose, quoted
from nas.study.folder import StudyFolder
from nas.study.reading import COMPONENTS, every_setting
from nas.study.record import versions
from nas.study.recorded_space import import_modules_of
from nas.study.settings import GeneralSettings

CONFIG = "config.yaml"

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Texts that need no quotes, unless they are among `MEANINGFUL`."""

MEANINGFUL = ("null", "true", "false", "nan", "inf")

_ABSENT = object()

SELECTING = ("name", "preset")
"""Last parts of settings on which the defaults of others depend."""


def command(study: StudyResults, name: str, *, allow_imports: bool = False) -> list[str]:
    """Return the words of the command that runs a study's search anew, under another name.

    It has the settings that differ from the defaults, and gives every setting the value that the
    study had.

    Args:
        study: The study.
        name: Of the new one.
        allow_imports: Whether to import the modules that the study names, which runs their code.

    Raises:
        HwnasError: The study needs modules that are not imported yet, and `allow_imports` is not
            given; or this release cannot give a setting the value that it had.

    Example:
        >>> command(nas.open("photos"), "again")  # doctest: +SKIP
        ['nas', 'search', 'search_space=vit', 'data=image_folder', 'data.path=photos', 'name=again']
    """
    wanted = {**StudyFolder(study.path).saved(), "name": name}
    with decoding(study.path / CONFIG):
        modules = list(wanted["imports"])
        before = str(wanted["search_space"].get("base") or "").rpartition(":")[0]
    if before and before not in search_spaces.names():
        modules.append(before)  # of a function that returns the network
    import_modules_of(study, modules, allow_imports)
    with decoding(study.path / CONFIG):
        overrides = list(_selected(wanted))
    selecting = _differences(every_setting(compose(overrides)), wanted)
    overrides += [text for path, text in selecting if path.rpartition(".")[2] in SELECTING]
    overrides += [text for _, text in _differences(every_setting(compose(overrides)), wanted)]
    left = [text for _, text in _differences(every_setting(compose(overrides)), wanted)]
    if left:
        line = f"this release cannot set {', '.join(left)}"
        raise HwnasError(f"{study.path}: {line}; take the release that the study was made with")
    return ["nas", "search", *_needed(overrides)]


def _selected(wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield the overrides that choose the components, with what these cannot do without."""
    if wanted["imports"]:
        yield f"imports={_hydra(wanted['imports'])}"
    for section, registry in COMPONENTS.items():
        chosen = wanted[section]
        yield f"{section}={chosen['name']}"
        for field in dataclasses.fields(registry.component(chosen["name"])):
            if field.default is field.default_factory and field.name in chosen:
                yield f"{section}.{field.name}={_hydra(chosen[field.name])}"
    yield f"search={wanted['search']['algorithm']['name']}"


def folder_of(study: StudyResults, name: str) -> Path:
    """Return the folder of the study that the `command` of `study` makes under another name.

    It is not beside `study` where that was moved, or was unpacked.
    """
    with decoding(study.path / CONFIG):
        return Path(StudyFolder(study.path).saved().get("runs", GeneralSettings.runs), name)


def changed_versions(study: StudyResults) -> dict[str, tuple[str, str]]:
    """Return the versions of Python and packages that are others here, by name: then and now."""
    then, now = study.record.get("versions") or {}, versions()
    names = dict.fromkeys([*then, *now])
    both = {name: (str(then.get(name, "-")), str(now.get(name, "-"))) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _needed(overrides: list[str]) -> list[str]:
    """Return the overrides without which the settings would be others."""
    whole, kept = every_setting(compose(overrides)), list(overrides)
    for override in overrides:
        less = [other for other in kept if other != override]
        try:
            if every_setting(compose(less)) == whole:
                kept = less
        except HwnasError:
            continue
    return kept


def _differences(
    base: Mapping[str, Any], wanted: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the settings whose values differ, and the override that sets each of them.

    A setting that is newer than the study, which `wanted` lacks, keeps its default.
    """
    for name, new in wanted.items():
        setting, old = f"{path}{name}", base.get(name, _ABSENT)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{setting}.")
        else:
            yield setting, f"{setting}={_hydra(new)}"


def _hydra(value: Any) -> str:
    """Return a value as Hydra's grammar for overrides has it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}: {_hydra(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in MEANINGFUL
        return value if plain else quoted(value)
    return repr(value) if isinstance(value, float) else json.dumps(value)
