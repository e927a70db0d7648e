"""What a light installation lacks."""

from __future__ import annotations

import re
from importlib import metadata

_SHOWN = 3


def missing_packages() -> str:
    """Return which packages of the extra `search` are not installed, the first few by name."""
    lines = (metadata.requires("hwnas") or []) if _installed("hwnas") else []
    names = [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in lines if _of_search(line)]
    missing = [name for name in names if not _installed(name)]
    return ", ".join(missing[:_SHOWN] + ["..."] * (len(missing) > _SHOWN))


def _of_search(requirement: str) -> bool:
    marker = requirement.partition(";")[2]
    return re.search(r"""extra\s*==\s*["']search["']""", marker) is not None


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
