"""Composing a configuration from files, names of components and overrides, by Hydra.

Every registered component is an option of its group, so `device=cpu` needs no file. What a
composed configuration leaves out has its default, which `nas.study.reading` fills in.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.core.errors import ConfigError, HwnasError, UnknownNameError, first_line
from nas.search import algorithms
from nas.study.config_source import searchpath
from nas.study.reading import COMPONENTS
from nas.study.yaml_files import read_text

GROUPS = {**COMPONENTS, "search": algorithms.registry}
"""Registry of the components that are the options of a group; that of `search` is its algorithm."""


_PACKAGE = re.compile(r"^# *@package ", re.MULTILINE)


def config_folder() -> Path:
    """Return the folder of configurations, in a source tree or in an installed package."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def options(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Return the options of every group, those of files included."""
    found = {group: set(registry.names()) for group, registry in GROUPS.items()}
    for folder in (config_folder(), *([config_dir] if config_dir else [])):
        for path in folder.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in found.items()}


def sweep(overrides: Sequence[str], *, multirun: bool) -> list[list[str]]:
    """Return the overrides of every job: one, or with `multirun` all combinations of `a=1,2`.

    Raises:
        HwnasError: An override cannot be read, or has several values without `multirun`.
    """
    values = []
    for override in _parsed(overrides):
        if not override.is_sweep_override():
            values.append([str(override.input_line)])
            continue
        key = override.get_key_element()
        if not multirun or not override.is_discrete_sweep():
            fix = "run a study for each of several values with --multirun"
            got = str(override.input_line).partition("=")[2]
            raise ConfigError(key, got, "one value", fix)
        values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    return [list(job) for job in itertools.product(*values)]


def compose(
    overrides: Sequence[str] = (),
    *,
    config_dir: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DictConfig:
    """Compose a configuration.

    Args:
        overrides: In Hydra's grammar, such as `device=cpu` and `device.threads=2`.
        config_dir: Folder of the user's own configurations.
        settings: Values by dotted name, set after the overrides.

    Raises:
        HwnasError: An override cannot be read or applied, or a file does not exist.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError("--config-dir", str(config_dir), "a folder of configurations")
    groups = options(config_dir)
    parsed = _parsed(overrides)
    for override in parsed:
        _check_package(override, config_dir)
    texts = [_override_text(override, groups) for override in parsed]
    if config_dir is not None:
        texts.append(searchpath(config_dir))
    _store_components(config_dir)
    config = _composed(texts)
    for name, value in (settings or {}).items():
        try:
            OmegaConf.update(config, name, value, merge=True, force_add=True)
        except OmegaConfBaseException as error:
            raise ConfigError(
                name, value, f"another kind of value ({first_line(error)})"
            ) from error
    return config


def quoted(text: str) -> str:
    """Return a text as Hydra reads it, whatever characters it has."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        name, equals, value = str(error.override).partition("=")
        items = value[1:-1].split(",") if value[:1] + value[-1:] == "[]" else []
        texts = ", ".join(quoted(item.strip()) for item in items)
        setting = f"{name}=[{texts}]" if items else f"{name}={quoted(value)}"
        fix = f"quote its special characters: {shlex.quote(setting)}"
        line = f"{error.override}: cannot be read, expected NAME=VALUE"
        raise HwnasError(f"{line}; {fix}" if equals else line) from error
    for override in parsed:
        group = override.key_or_group
        if not group:
            raise ConfigError("setting", str(override.input_line), "NAME=VALUE")
        if override.is_delete() or override.is_sweep_override() or group not in GROUPS:
            continue
        if not isinstance(override.value(), str | dict):
            raise ConfigError(group, override.value(), "one name")
    return parsed


def _check_package(override: Override, config_dir: Path | None) -> None:
    """Refuse a file of settings that do not say where they belong.

    A component's file has the component's settings; any other one, such as an experiment, has
    settings of the whole, but Hydra takes them for those of a section of the group's name.
    """
    group, value = override.key_or_group, override.value()
    if config_dir is None or group in GROUPS:
        return
    for name in value if isinstance(value, list) else [value]:
        file = config_dir / group / f"{name}.yaml"
        if file.is_file() and not _PACKAGE.search(read_text(file)):
            line = "lacks '# @package _global_' as its first line"
            raise HwnasError(f"{file}: {line}; without it its settings are those of {group!r}")


def _override_text(override: Override, groups: Mapping[str, Any]) -> str:
    """Return the text of an override, which adds what the composed files do not name."""
    line = str(override.input_line)
    choice = override.key_or_group in groups and not isinstance(override.value(), dict)
    plain = override.type is OverrideType.CHANGE
    return f"++{line}" if plain and not choice and not override.is_hydra_override() else line


def _store_components(config_dir: Path | None) -> None:
    """Make every registered component an option, unless a file of its name takes its place."""
    folders = [config_folder(), *([config_dir] if config_dir else [])]
    for group, registry in GROUPS.items():
        ConfigStore.instance().repo.pop(group, None)
        for name in registry.names():
            if not any((folder / group / f"{name}.yaml").is_file() for folder in folders):
                _store(group, name)


def _store(group: str, name: str) -> None:
    node = {"algorithm": {"name": name}} if group == "search" else {"name": name}
    ConfigStore.instance().store(name, node, group)


def _composed(texts: list[str]) -> DictConfig:
    """Compose; a component of the user's own becomes an option when it is first asked for."""
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            return hydra.compose("config", texts)
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group in GROUPS and re.fullmatch(r"\w+", name):
            # Its module is imported later; what it does not register is refused then.
            _store(group, name)
            return _composed(texts)
        if error.options:
            raise UnknownNameError(group, name, error.options) from error
        raise HwnasError(" ".join(str(error).split())) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        causes = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        raise HwnasError(" ".join(": ".join(causes).split())) from error
