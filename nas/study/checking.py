"""A part of a configuration, checked, completed by its defaults and built into a dataclass."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from nas.core.errors import ConfigError, HwnasError, UnknownNameError, first_line
from nas.core.registry import Registry, nested_registries, nested_settings, tuples

T = TypeVar("T")

_KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "ListConfig": "a list, such as [a, b]",
    "Dict": "settings, such as {a: 1}",
    "'None'": "a value",
}
"""What was expected, by a word of OmegaConf's message."""


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return a configuration in plain values.

    Raises:
        HwnasError: An interpolation such as `${oc.env:NAME}` stands for nothing.
    """
    try:
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise HwnasError(f"{error.full_key}: cannot be resolved ({first_line(error)})") from error


def import_modules(names: Sequence[str], setting: str = "imports") -> None:
    """Import a user's modules, whose components register themselves.

    They are found in the working directory, which Ray gives its workers as well, or where Python
    looks anyway.

    Args:
        names: Of the modules.
        setting: Where they are named, for the error's text.

    Raises:
        ConfigError: A module cannot be imported.
    """
    folder = str(Path.cwd())
    # Last, so that a file of the user never takes the place of an installed package.
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(setting, name, "names of modules, such as my_space")
        try:
            importlib.import_module(name)
        except (ImportError, SyntaxError) as error:
            fix = f"start in the folder that holds it, or set PYTHONPATH ({error})"
            expected = f"a module that can be imported in {folder}"
            raise ConfigError(setting, name, expected, fix) from error


def component(
    registry: Registry[T], node: Any, path: str, given: dict[str, Any] | None = None
) -> T:
    """Build the component that the `name` in `node` names.

    Args:
        registry: Of the components of its kind.
        node: Name and fields; fields that are left out have their defaults. A field that holds
            another component has that one's name and fields.
        path: Where `node` stands in the configuration, for messages.
        given: Fields that no configuration sets.

    Raises:
        ConfigError: The name is unknown, or a field is unknown, missing or of another type.
    """
    cls, fields = _class_and_fields(registry, node)
    return structured(cls, {**fields, **(given or {})}, path)


def completed_component(
    registry: Registry[Any], node: Any, path: str, later: Collection[str] = ()
) -> dict[str, Any]:
    """Return the name and every field of a component, which is checked as `component` does.

    It is not built. The fields `later` are left out: they are given when it is built.
    """
    cls, fields = _class_and_fields(registry, node)
    return {"name": node["name"], **completed(cls, fields, path, later)}


def completed(cls: type, node: Any, path: str, later: Collection[str] = ()) -> dict[str, Any]:
    """Return every field of a dataclass in plain values; see `completed_component`."""
    own, held = _own_and_held(cls, node, path)
    merged = _merged(cls, own, path)
    for key in sorted(OmegaConf.missing_keys(merged) - set(later)):
        raise ConfigError(f"{_prefix(path)}{key}", None, "a value")
    values = cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True))
    registries = nested_registries(cls)
    for field, inner in held.items():
        values[field] = completed_component(registries[field], inner, f"{_prefix(path)}{field}")
    names = [f.name for f in dataclasses.fields(cls) if f.name in values and f.name not in later]
    return {name: values[name] for name in names}


def structured(cls: type[T], node: Any, path: str) -> T:
    """Build the dataclass `cls` from plain values, with type checks by OmegaConf.

    Raises:
        ConfigError: A field is unknown, missing, or has a value that cannot be used.
    """
    own, held = _own_and_held(cls, node, path)
    merged = _merged(cls, own, path)
    registries = nested_registries(cls)
    try:
        built = OmegaConf.to_object(merged)
        # A configuration has lists where a frozen dataclass declares tuples.
        changes = {k: tuples(value) for k, value in vars(built).items() if isinstance(value, list)}
        for field, inner in held.items():
            changes[field] = component(registries[field], inner, f"{_prefix(path)}{field}")
        return cast("T", dataclasses.replace(cast("Any", built), **changes))
    except OmegaConfBaseException as error:
        raise _config_error(error, cls, own, path) from error
    except ConfigError as error:
        # The recipes of a study do not know which one they are.
        if error.argument.startswith("recipe."):
            line = str(error).removeprefix("recipe")
            raise HwnasError(f"{_prefix(path)}{_part_refused(merged)}{line}") from error
        raise


def _part_refused(merged: DictConfig) -> str:
    """Return the name of the first part that cannot be built by itself, else `recipe`."""
    for name in merged:
        part = merged._get_node(name)
        try:
            if isinstance(part, DictConfig):
                OmegaConf.to_object(part)
        except ConfigError:
            return str(name)
    return "recipe"


def _class_and_fields(registry: Registry[T], node: Any) -> tuple[type[T], dict[str, Any]]:
    fields = dict(node or {})
    return registry.component(str(fields.pop("name", None))), fields


def _own_and_held(
    cls: type, node: Any, path: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a dataclass's own fields as they are given, and name and fields of what it holds.

    Raises:
        ConfigError: A value stands where settings are expected.
    """
    own = dict(node or {})
    for field in nested_registries(cls):
        if not isinstance(value := own.get(field), Mapping | str | None):
            raise ConfigError(f"{_prefix(path)}{field}", value, "a name, or settings with one")
    _check_parts(cls, own, path)
    held = {
        field: nested_settings(cls, field, own.pop(field, None) or {})
        for field in nested_registries(cls)
    }
    return own, held


def _check_parts(cls: type, own: Mapping[str, Any], path: str) -> None:
    """Check that the dataclasses in a dataclass are given by their settings, not by one value."""
    kinds = get_type_hints(cls)
    for name in own.keys() & kinds.keys():
        part, value, setting = kinds[name], own[name], f"{_prefix(path)}{name}"
        if not dataclasses.is_dataclass(part) or name in nested_registries(cls):
            continue
        if not isinstance(value, Mapping):
            fields = ", ".join(field.name for field in dataclasses.fields(part))
            raise ConfigError(setting, value, "settings", f"set {setting}.NAME, one of {fields}")
        _check_parts(cast("type", part), value, setting)


def _merged(cls: type, node: Any, path: str) -> DictConfig:
    """Return the fields of a dataclass with their values, names and types checked."""
    try:
        schema = _writable(OmegaConf.structured(cls))
        return cast("DictConfig", OmegaConf.merge(schema, _unresolved(node)))
    except OmegaConfBaseException as error:
        raise _config_error(error, cls, node, path) from error


def _unresolved(node: Any) -> DictConfig:
    """Return plain values as OmegaConf's, which would resolve what a text holds, as `${oc.env:X}`.

    A configuration has been resolved by then; of a study that somebody else made, nothing is.
    """

    def escaped(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: escaped(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [escaped(item) for item in value]
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value

    return cast("DictConfig", OmegaConf.create(escaped(dict(node or {}))))


def _config_error(error: OmegaConfBaseException, cls: type, node: Any, path: str) -> ConfigError:
    key, given = str(error.full_key or error.key or ""), _unresolved(node)
    got = (
        OmegaConf.select(given, key, default=None)
        if key
        else OmegaConf.to_container(given, resolve=True)
    )
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        fields = [field.name for field in dataclasses.fields(error.object_type or cls)]
        name, among = key.rpartition(".")[2], "one of the settings"
        return UnknownNameError(f"{_prefix(path)}{key}", name, fields, among, got=got)
    return ConfigError(f"{_prefix(path)}{key}", got, _expectation(error))


def _prefix(path: str) -> str:
    return f"{path}." if path else ""


def _writable(schema: Any) -> Any:
    """Lift the write protection that a frozen dataclass gives to its schema."""
    OmegaConf.set_readonly(schema, False)
    for key in schema:
        if isinstance(schema._get_node(key), DictConfig) and schema[key] is not None:
            _writable(schema[key])
    return schema


def _expectation(error: OmegaConfBaseException) -> str:
    if isinstance(error, MissingMandatoryValue):
        return "a value"
    line = first_line(error)
    return next((kind for word, kind in _KINDS.items() if word in line), line)
