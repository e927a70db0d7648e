"""Energy and memory of a network, where the machine counts them; nowhere are they estimated.

Processors: the counters of RAPL that Linux shows as power capping zones. A zone's `energy_uj`
grows to `max_energy_range_uj` and begins at 0 again (Documentation/power/powercap/powercap.rst
of the Linux kernel). Only root may read them on most systems. NVIDIA GPUs: the counter of NVML,
`nvmlDeviceGetTotalEnergyConsumption`, in millijoules since the driver was loaded.

Both count all that the package or the GPU does, idle power included.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"
_NAME_BYTES = 96
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Counters:
    """Energy counters at one moment, by name, in millijoules.

    Attributes:
        source: Where they are read: `RAPL` or `NVML`.
        values_mj: The counters.
        ranges_mj: Where those that wrap do so.
    """

    source: str
    values_mj: Mapping[str, float]
    ranges_mj: Mapping[str, float]

    def since(self, before: Counters) -> float:
        """Return the millijoules from `before` until this moment, less than one wrap apart."""
        total = 0.0
        for name, value in self.values_mj.items():
            spent = value - before.values_mj[name]
            total += spent if spent >= 0 else spent + self.ranges_mj[name]
        return total


def read_rapl(powercap: Path = POWERCAP) -> Counters | None:
    """Return the counters of all processor packages, `None` if there are none to read.

    Zones below a package (cores, graphics) are part of it, and `psys` is more than the processor.
    """
    values, ranges = {}, {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            if not (zone / "name").read_text().startswith("package"):
                continue
            values[zone.name] = int((zone / "energy_uj").read_text()) / 1000
            ranges[zone.name] = int((zone / "max_energy_range_uj").read_text()) / 1000
        except (OSError, ValueError):
            return None  # part of the truth would look like the whole
    return Counters("RAPL", values, ranges) if values else None


def read_nvml(library: Any = None) -> Counters | None:
    """Return the counter of the only NVIDIA GPU, `None` if there is none, or several.

    Args:
        library: The loaded NVML; by default that of the installed driver.
    """
    with _only_gpu(library) as gpu:
        if gpu is None:
            return None
        nvml, handle = gpu
        energy_mj = ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy_mj)):
            return None  # before the Volta generation GPUs do not count
        return Counters("NVML", {"gpu": float(energy_mj.value)}, {})


@functools.cache
def gpu_name(library: Any = None) -> str | None:
    """Return the name of the only NVIDIA GPU, `None` if there is none, or several."""
    with _only_gpu(library) as gpu:
        if gpu is None:
            return None
        nvml, handle = gpu
        name = ctypes.create_string_buffer(_NAME_BYTES)
        return None if nvml.nvmlDeviceGetName(handle, name, _NAME_BYTES) else name.value.decode()


@contextlib.contextmanager
def _only_gpu(library: Any) -> Iterator[tuple[Any, Any] | None]:
    # Which of several GPUs a runtime uses is not what NVML's numbers say.
    try:
        nvml = ctypes.CDLL(_NVML) if library is None else library
    except OSError:
        yield None
        return
    if nvml.nvmlInit_v2():
        yield None
        return
    try:
        count, handle = ctypes.c_uint(), ctypes.c_void_p()
        alone = not nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) and count.value == 1
        found = alone and not nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
        yield (nvml, handle) if found else None
    finally:
        nvml.nvmlShutdown()


ENERGY_READERS: dict[str, Callable[[], Counters | None]] = {
    "cpu": read_rapl,
    "xnnpack": read_rapl,
    "dnnl": read_rapl,
    "cuda": read_nvml,
    "tensorrt": read_nvml,
}
"""What counts the energy of a provider's hardware; nothing does of those that are not here."""


def read_energy(provider: str) -> Counters | None:
    """Return the counters of what a provider runs on, `None` where nothing counts."""
    reader = ENERGY_READERS.get(provider)
    return None if reader is None else reader()


def memory_method() -> str:
    """Return how `high_water_mb` reads the mark: `VmHWM`, `ru_maxrss` or `none`."""
    if _STATUS.exists():
        return "VmHWM"
    return "none" if resource is None else "ru_maxrss"


def reset_high_water() -> bool:
    """Lower the high-water mark to what the process holds now; return whether that is possible."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def high_water_mb() -> float | None:
    """Return the most memory that the process has held, in megabytes (10^6 bytes).

    `None` where the platform cannot tell.
    """
    if memory_method() == "VmHWM":
        lines = _STATUS.read_text().splitlines()
        kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024 / 1e6
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
