"""What a measurement was surrounded by."""

from __future__ import annotations

import os
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_host() -> dict[str, Any]:
    """Return processor, operating system and time as JSON values; `None` for what is not told."""
    frequency = psutil.cpu_freq()
    return {
        "cpu_model": cpu_model(),
        "logical_cores": os.cpu_count(),
        "cpu_mhz": frequency.current if frequency else None,
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
        "os": platform.platform(),
        "hostname": socket.gethostname(),
        "timestamp_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    """Return the processor's name."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def load_average() -> float | None:
    """Return the load average of the last minute, or `None` where there is none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
