"""A loaded network, timed."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np

from nas.core.measurement import ImageArray
from nas.devices.measuring.runtime import LoadedNetwork

INPUT_SEED = 0


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
        self.run = network.run
        self.run()

    def time_ms(self) -> float:
        """Run one inference; return its milliseconds."""
        start = time.perf_counter_ns()
        self.run()
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
        self.run()
        return statistics.median(self.time_ms() for _ in range(inferences))
