"""What a study ran on: versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import psutil

from nas.core.host import usable_cores

PACKAGES = ("hwnas", "torch", "onnxruntime", "onnx", "ray", "pymoo", "optuna", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Return the host's processor, cores and memory."""
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_mb": round(psutil.virtual_memory().total / 1e6),
    }
