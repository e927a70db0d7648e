"""What a measurement was surrounded by."""

from __future__ import annotations

import os
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.core.host import usable_cores
from nas.core.measurement import Device
from nas.devices.measuring.resources import ENERGY_READERS, gpu_name, read_nvml

_CPUINFO = Path("/proc/cpuinfo")
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_MODEL_KEYS = ("model name", "Model", "Hardware")
"""What x86 and ARM call the processor in `_CPUINFO`."""


def describe_host() -> dict[str, Any]:
    """Return what this machine is and the time, as JSON values; `None` for what is not told."""
    return {
        "cpu_model": cpu_model(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_mhz": cpu_mhz(),
        "governor": _read(_CPUFREQ / "scaling_governor"),
        "os": platform.platform(),
        "hostname": socket.gethostname(),
        "python": platform.python_version(),
        "timestamp_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def hardware(threads: int, provider: str) -> dict[str, Any]:
    """Return what this machine is, as far as it makes measurements of a provider differ."""
    facts: dict[str, Any] = {"cpu_model": cpu_model(), "logical_cores": os.cpu_count()}
    # Left out where all threads have a core: then it makes no difference how many there are.
    if (cores := usable_cores()) < threads:
        facts["usable_cores"] = cores
    if ENERGY_READERS.get(provider) is read_nvml:
        facts["gpu"] = gpu_name()
    return facts


def threads_line(device: Device) -> str | None:
    """Return a line for people where a device has more threads than cores for them, else `None`.

    Raises:
        DeviceError: A device of another machine does not answer.
    """
    identity = device.identity()
    cores = identity.get("usable_cores")
    if cores is None:
        return None
    return (
        f"device.threads: got {identity['threads']}, but processes there may use {cores} core(s): "
        "threads wait for each other and latencies are longer; lower it or allow more cores"
    )


def cpu_model() -> str:
    """Return the processor's name."""
    facts = _cpuinfo()
    names = [facts[key] for key in _MODEL_KEYS if key in facts]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_mhz() -> float | None:
    """Return the first core's frequency at this moment, `None` where it is not told."""
    if (kilohertz := _read(_CPUFREQ / "scaling_cur_freq")) is not None:
        return int(kilohertz) / 1000
    megahertz = _cpuinfo().get("cpu MHz")
    return None if megahertz is None else float(megahertz)


def load_average() -> float | None:
    """Return the load average of the last minute, or `None` where there is none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cpuinfo() -> dict[str, str]:
    """Return what `_CPUINFO` says of the first core."""
    facts: dict[str, str] = {}
    for line in (_read(_CPUINFO) or "").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return facts


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
