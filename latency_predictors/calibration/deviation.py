"""By how much a network as a whole deviates from the sum of its parts.

The more weights and calls a network has, the less of them stays in the caches from one inference
to the next, so that the same part takes longer in a larger network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.core.prediction import FloatArray

TOTALS = ("roofline_ms", "calls", "weights")
"""Sums over the parts of a network on which its deviation depends."""

ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class NetworkDeviation:
    """A smooth function of a network's totals: the mean of a Gaussian process.

    Attributes:
        centre: Of the totals' logarithms, shape `(3,)`.
        length: Over which they matter, shape `(3,)`.
        samples: Measured networks in these units, shape `(n, 3)`.
        weights: Of the samples, shape `(n,)`.
        amplitude: Standard deviation of networks unlike all samples.
    """

    centre: FloatArray
    length: FloatArray
    samples: FloatArray
    weights: FloatArray
    amplitude: float

    @classmethod
    def none(cls) -> NetworkDeviation:
        """Return the deviation of networks that are the sum of their parts."""
        size = len(TOTALS)
        return cls(np.zeros(size), np.ones(size), np.zeros((0, size)), np.zeros(0), 0.0)

    def __call__(self, totals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return deviations relative to the roofline, and how unsure they are, shape `(n,)`.

        Args:
            totals: Of every network, shape `(n, 3)`.
        """
        deviations, unsure = np.zeros((2, len(totals)))
        if not len(self.samples):
            return deviations, unsure
        # Distances to a few percent of a length are enough, and half the bytes are twice as fast.
        weights = self.weights.astype(np.float32)
        samples = self.samples.astype(np.float32)
        own = 0.5 * (samples**2).sum(1)
        for start in range(0, len(totals), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            scaled = self.scaled(totals[rows]).astype(np.float32)
            logs = scaled @ samples.T
            logs -= own
            logs -= 0.5 * (scaled**2).sum(1)[:, None]
            alike = np.exp(logs, out=logs)
            deviations[rows] = alike @ weights
            unsure[rows] = self.amplitude * (1 - alike.max(1))
        return deviations, np.maximum(unsure, 0)

    def scaled(self, totals: FloatArray) -> FloatArray:
        """Return totals in the units of `samples`."""
        logs = np.log(np.maximum(totals, np.finfo(np.float32).tiny))
        scaled: FloatArray = (logs - self.centre) / self.length
        return scaled
