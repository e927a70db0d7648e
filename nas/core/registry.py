"""Named components, found in the files of a package.

A component is a keyword-only frozen dataclass; its fields are its configuration. A module of the
package registers it with a decorator, `@register("NAME")`, so a new one is one new file and nothing
else. Names are read from the text of the modules, which are imported when a component is asked for:
listing them stays cheap. A component may hold another one in a field declared with `nested`, whose
configuration is the other one's name and fields, or its name alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from nas.core.errors import ConfigError, UnknownNameError

T = TypeVar("T")

_REGISTRY, _DEFAULT = "hwnas_registry", "hwnas_default"

# The decorator of a component, at the beginning of a line.
_REGISTERS = re.compile(r"""^@(?:\w+\.)*register\(["'](\w+)["']\)""", re.MULTILINE)


class Registry(Generic[T]):
    """The components of one kind."""

    def __init__(self, kind: str, package: str) -> None:
        """Look for components in `package`.

        Args:
            kind: What the components are, for messages ("search space").
            package: Import name of the package whose modules register the components.
        """
        self.kind = kind
        self._package = package
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers a frozen, keyword-only dataclass as `name`."""

        def decorate(cls: type[T]) -> type[T]:
            # Fields of a class that only inherits from a dataclass would go unnoticed.
            if "__dataclass_fields__" not in vars(cls):
                raise TypeError(f"{self.kind} {name!r}: {cls.__name__} must be a dataclass")
            if "name" in cls.__dataclass_fields__:  # type: ignore[attr-defined]
                raise TypeError(f"{self.kind} {name!r}: `name` cannot be a field, it is its own")
            holder = self._classes.get(name, cls)
            if (holder.__module__, holder.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"{self.kind} {name!r}: {holder.__module__} has that name already")
            self._classes[name] = cls
            return cls

        return decorate

    def names(self) -> tuple[str, ...]:
        """Return all registered names, sorted, without importing any component."""
        return tuple(sorted({*self._modules(), *self._classes}))

    def _modules(self) -> dict[str, str]:
        """Return the module that registers each name."""
        found: dict[str, str] = {}
        for folder in importlib.import_module(self._package).__path__:
            for file in Path(folder).glob("*.py"):
                names = _REGISTERS.findall(file.read_text(encoding="utf-8"))
                found |= dict.fromkeys(names, f"{self._package}.{file.stem}")
        return found

    def component(self, name: str) -> type[T]:
        """Return the class registered as `name`.

        Raises:
            UnknownNameError: No component has that name.
        """
        if name not in self._classes:
            module = self._modules().get(name)
            if module is None:
                raise UnknownNameError(self.kind, name, self.names())
            importlib.import_module(module)
        return self._classes[name]

    def name_of(self, cls: type) -> str:
        """Return the name that a class is registered as.

        Raises:
            TypeError: It has none.
        """
        for name, known in self._classes.items():
            if known is cls:
                return name
        raise TypeError(f"{cls.__name__} is not registered as {self.kind}")

    def get(self, name: str, **fields: Any) -> T:
        """Build the component `name` from its fields.

        Lists, as JSON gives them, become tuples; the settings of a nested component become that
        component.

        Raises:
            UnknownNameError: No component has that name.
            ConfigError: A field does not exist, or one without a default is missing.
        """
        cls = self.component(name)
        known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        for field in fields:
            if field not in known:
                raise UnknownNameError(f"{self.kind} {name!r}", field, known, "a field of")
        for field, spec in known.items():
            defaults = (spec.default, spec.default_factory)
            if field not in fields and defaults == (dataclasses.MISSING, dataclasses.MISSING):
                raise ConfigError(f"{self.kind} {name!r}", "nothing", f"a value for {field!r}")
        holders = nested_registries(cls)
        return cls(
            **{
                field: holders[field].get(**nested_settings(cls, field, value))
                if field in holders and isinstance(value, Mapping | str)
                else tuples(value)
                for field, value in fields.items()
            }
        )

    def settings(self, component: T) -> dict[str, Any]:
        """Return the name and the fields from which `get` builds an equal component.

        Raises:
            TypeError: The component's class is not registered.
        """
        name = self.name_of(type(component))
        settings = {"name": name, **dataclasses.asdict(component)}  # type: ignore[call-overload]
        for field, registry in nested_registries(type(component)).items():
            settings[field] = registry.settings(getattr(component, field))
        return settings


def nested(registry: Registry[T], default: str, **fields: Any) -> T:
    """Declare a field that holds another component.

    Args:
        registry: Of the component that the field holds.
        default: Name of the component that it holds unless another one is given.
        **fields: Fields of that component, where they differ from its own defaults.
    """
    # OmegaConf knows no type for it; who reads a configuration builds it from the registry.
    metadata = {
        _REGISTRY: registry,
        _DEFAULT: {"name": default, **fields},
        "omegaconf_ignore": True,
    }
    return dataclasses.field(
        default_factory=lambda: registry.get(default, **fields), metadata=metadata
    )


def nested_settings(cls: type, field: str, value: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the name and the fields of a component that another one holds.

    Args:
        cls: Of the component that holds it.
        field: Declared with `nested`.
        value: A name, or fields, whose name may be left out where it is the default.
    """
    given = {"name": value} if isinstance(value, str) else dict(value)
    default = next(f.metadata[_DEFAULT] for f in dataclasses.fields(cls) if f.name == field)
    same = given.get("name", default["name"]) == default["name"]
    return {**default, **given} if same else given


def nested_registries(cls: type) -> dict[str, Registry[Any]]:
    """Return the registries of the components that a component's fields hold, by field."""
    fields = dataclasses.fields(cls)
    return {f.name: f.metadata[_REGISTRY] for f in fields if _REGISTRY in f.metadata}


def tuples(value: Any) -> Any:
    """Return `value` with a tuple in place of every list."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
