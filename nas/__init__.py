"""Hardware-aware neural architecture search.

    study = nas.search(space="mobilenet", data="photos", evaluations=96, name="photos")
    study.pareto(where="latency_ms_measured < 2")
    study.export("knee", "out/photos")

`nas.devices`, `nas.results` and the other rooms load when they are first used, so that importing
`nas` costs nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.api import Study as Study
    from nas.api import compress as compress
    from nas.api import open as open  # noqa: A004
    from nas.api import search as search

__version__ = "0.1.0"

_ROOMS = ("data", "devices", "evaluation", "export", "objectives", "results", "study", "tasks")


class _CallableRoom(ModuleType):
    """The package `nas.search`, which can also be called; see `nas.api.search`."""

    def __call__(self, **settings: Any) -> Study:
        study: Study = importlib.import_module("nas.api").search(**settings)
        return study


# By name, as below: a room that reads `nas.__version__` does not depend on the others.
importlib.import_module("nas.search").__class__ = _CallableRoom


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"nas.{name}")
    if name in ("Study", "compress", "open"):
        return getattr(importlib.import_module("nas.api"), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")
