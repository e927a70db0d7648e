"""The highest amount of memory that this process has held, as far as the platform tells."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def method() -> str:
    """Return how `high_water_mb` reads the mark: `VmHWM`, `ru_maxrss` or `none`."""
    if _STATUS.exists():
        return "VmHWM"
    return "none" if resource is None else "ru_maxrss"


def reset() -> bool:
    """Lower the mark to what the process holds now; return whether the platform lets it."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def high_water_mb() -> float | None:
    """Return the mark in megabytes (10^6 bytes), or `None` where the platform cannot tell."""
    if method() == "VmHWM":
        lines = _STATUS.read_text().splitlines()
        kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024 / 1e6
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
