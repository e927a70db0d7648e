"""Hardware-aware neural architecture search.

`nas.devices`, `nas.results` and the other rooms load when they are first used, so that importing
`nas` costs nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = ("data", "devices", "evaluation", "export", "objectives", "results", "search", "study")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"nas.{name}")
    raise AttributeError(f"module 'nas' has no attribute {name!r}")
