"""Named components, found by the file they stand in.

A component is a keyword-only frozen dataclass; its fields are its configuration. The module
`PACKAGE/NAME.py` registers the component `NAME`, so a new one is one new file and nothing else.
What several components share stands in a sub-package of that folder. Modules are imported when
a component is asked for, so listing names stays cheap.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from nas.core.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """The components of one kind."""

    def __init__(self, kind: str, package: str) -> None:
        """Look for components in `package`.

        Args:
            kind: What the components are, for messages ("search space").
            package: Import name of the package whose modules are the components.
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
        path = importlib.import_module(self._package).__path__
        found = {module.name for module in pkgutil.iter_modules(path) if not module.ispkg}
        return tuple(sorted(found | set(self._classes)))

    def component(self, name: str) -> type[T]:
        """Return the class registered as `name`.

        Raises:
            UnknownNameError: No component has that name.
        """
        if name not in self._classes:
            if name not in self.names():
                raise UnknownNameError(self.kind, name, self.names())
            importlib.import_module(f"{self._package}.{name}")
        if name not in self._classes:
            raise TypeError(f"{self.kind} {name!r}: {self._package}.{name} must register it")
        return self._classes[name]

    def get(self, name: str, **fields: Any) -> T:
        """Build the component `name` from its fields; lists, as JSON gives them, become tuples.

        Raises:
            UnknownNameError: No component has that name.
            ConfigError: A field does not exist, or one without a default is missing.
        """
        cls = self.component(name)
        known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        for field in fields:
            if field not in known:
                raise ConfigError(f"{self.kind} {name!r}", field, f"a field of {sorted(known)}")
        for field, spec in known.items():
            defaults = (spec.default, spec.default_factory)
            if field not in fields and defaults == (dataclasses.MISSING, dataclasses.MISSING):
                raise ConfigError(f"{self.kind} {name!r}", "nothing", f"a value for {field!r}")
        return cls(**{field: _tuples(value) for field, value in fields.items()})

    def settings(self, component: T) -> dict[str, Any]:
        """Return the name and the fields from which `get` builds an equal component.

        Raises:
            TypeError: The component's class is not registered.
        """
        registered = [n for n, cls in self._classes.items() if type(component) is cls]
        if not registered:
            raise TypeError(f"{type(component).__name__} is not registered as {self.kind}")
        name = registered[0]
        return {"name": name, **dataclasses.asdict(component)}  # type: ignore[call-overload]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
