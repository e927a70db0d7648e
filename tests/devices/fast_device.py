"""The device of this machine, with little patience."""

from __future__ import annotations

from typing import Any

import pytest

import nas.devices
from nas.core.errors import DeviceError
from nas.core.measurement import Device
from nas.devices import runtimes

FAST = {
    "min_rounds": 36,
    "min_seconds": 0.0,
    "warmup_seconds": 0.01,
    "block_ms": 0.5,
    "relative_ci": 10.0,
}


def cpu(**fields: Any) -> Device:
    """Return the processor with few rounds."""
    return nas.devices.get("cpu", **(FAST | fields))


def installed(name: str) -> str:
    """Return the name of a runtime, or skip where its package is missing."""
    try:
        runtimes.component(name).version()
    except DeviceError as error:
        pytest.skip(str(error))
    return name
