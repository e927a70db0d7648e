"""A loaded network, timed, and the memory of the process that runs it."""

from __future__ import annotations

import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from nas.core.measurement import ImageArray
from nas.devices.measuring.runtime import LoadedNetwork

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

INPUT_SEED = 0
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def random_images(shape: tuple[int, ...]) -> ImageArray:
    """Return standard normal images, the same ones every time."""
    return np.random.default_rng(INPUT_SEED).standard_normal(shape, dtype=np.float32)


class Runner:
    """One loaded network with its input in place."""

    def __init__(self, network: LoadedNetwork) -> None:
        """Run a network once, which is when some runtimes find out that they cannot.

        Raises:
            ModelError: It cannot be run.
        """
        self.network = network
        self.infer = network.infer
        self.infer()

    def time_ms(self) -> float:
        """Run one inference; return its milliseconds."""
        start = time.perf_counter_ns()
        self.infer()
        return (time.perf_counter_ns() - start) / 1e6

    def run_for(self, seconds: float) -> list[float]:
        """Run for `seconds`, two inferences at least; return the milliseconds of each."""
        times_ms: list[float] = []
        deadline = time.perf_counter() + seconds
        while len(times_ms) < 2 or time.perf_counter() < deadline:
            times_ms.append(self.time_ms())
        return times_ms

    def warm_up(self, seconds: float, block_ms: float) -> int:
        """Run for `seconds`; return how many inferences fill a block of `block_ms`."""
        return max(1, math.ceil(block_ms / statistics.median(self.run_for(seconds))))

    def block_ms(self, inferences: int) -> float:
        """Return the median time of `inferences` inferences, in milliseconds.

        One more inference goes before them untimed: after another network has run it takes twice
        as long, because the caches hold the other one's weights.
        """
        self.infer()
        return statistics.median(self.time_ms() for _ in range(inferences))


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
