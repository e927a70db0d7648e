"""The latency of a new device from few measurements and the latencies of other devices.

Linear in columns that are known before anything is measured on the new device: the mean of the
other devices, each of them, how often each operation is chosen, and every single choice. Weights
have a Gaussian prior; how far each kind of column may carry, and the noise, are not chosen but
averaged over by their marginal likelihood (Hoeting et al., Bayesian model averaging, Statistical
Science 14, 1999; linear model: Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, chapter 2). Latencies are not taken in logarithms: devices add up what they run.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray

Matrix = FloatArray
"""Rows of columns, shape `(n, columns)`."""

OFFSET_VARIANCE = 100.0
"""Of the constant, which is free: latencies are relative to the samples' mean."""

VARIANCES = (
    (0.1,),
    (0.001, 0.003, 0.01, 0.03),
    (1e-5, 1e-3, 1e-2),
    (1e-5, 1e-3, 1e-2),
)
"""Prior variances, relative to the squared mean latency, that each kind of column may explain: the
devices' mean, single devices, counts of operations, single choices. All combinations are averaged.
Chosen on published reference devices alone: see `experiments/few_shot_transfer`."""

NOISES = (1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Variances of a measurement and of what the columns cannot express."""

DESIGN_VARIANCES = (0.1, 0.03, 0.003, 0.003)
DESIGN_NOISE = 0.03
"""With which the networks to measure are chosen."""

NEGLIGIBLE = 1e-6
"""Share of the largest weight below which a combination is left out."""


@dataclass(frozen=True)
class Columns:
    """Scales what is known of architectures on a population.

    Attributes:
        centres: Means over the population, one array a kind of column.
        scales: Divisors: of each kind the squares of a row's columns sum to 1 on average.
        device_centre: Mean latency of each device, shape `(devices,)`.
        device_spread: Standard deviation of each.
    """

    centres: tuple[FloatArray, ...]
    scales: FloatArray
    device_centre: FloatArray
    device_spread: FloatArray

    @classmethod
    def of(cls, devices_ms: FloatArray, counts: FloatArray, one_hot: FloatArray) -> Columns:
        """Learn the scales.

        Args:
            devices_ms: Latencies of the population on the other devices, shape `(n, devices)`.
            counts: How often each operation is chosen, shape `(n, operations)`.
            one_hot: Single choices, shape `(n, choices)`.
        """
        centre, spread = devices_ms.mean(axis=0), devices_ms.std(axis=0)
        spread = np.where(spread > 1e-9 * centre, spread, np.inf)
        kinds = _kinds((devices_ms - centre) / spread, counts, one_hot)
        centres = tuple(kind.mean(axis=0) for kind in kinds)
        squares = [
            ((kind - c) ** 2).sum(axis=1).mean() for kind, c in zip(kinds, centres, strict=True)
        ]
        scales = np.sqrt([square if square > 0 else np.inf for square in squares])
        return cls(centres, scales, centre, spread)

    def __call__(self, devices_ms: FloatArray, counts: FloatArray, one_hot: FloatArray) -> Matrix:
        """Return the columns of architectures; arguments as in `of`."""
        kinds = _kinds((devices_ms - self.device_centre) / self.device_spread, counts, one_hot)
        scaled = [
            (kind - centre) / scale
            for kind, centre, scale in zip(kinds, self.centres, self.scales, strict=True)
        ]
        return np.hstack([np.ones((len(devices_ms), 1)), *scaled])

    @property
    def sizes(self) -> IntArray:
        """Number of columns of each kind, the constant first."""
        return np.array([1, *(len(centre) for centre in self.centres)])

    def variances(self, of_kinds: Sequence[float]) -> FloatArray:
        """Return the prior variance of each column's weight from that of each kind."""
        return np.repeat([OFFSET_VARIANCE, *of_kinds], self.sizes)


def _kinds(
    devices: FloatArray, counts: FloatArray, one_hot: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    return devices.mean(axis=1, keepdims=True), devices, counts, one_hot


@dataclass(frozen=True)
class FewShotModel:
    """Weights of the columns.

    Attributes:
        unit_ms: Mean latency of the samples, in which weights are expressed.
        weights: Posterior mean, shape `(columns,)`.
        covariance: Posterior covariance, shape `(columns, columns)`.
        noise: Posterior mean of the noise's variance.
    """

    unit_ms: float
    weights: FloatArray
    covariance: FloatArray
    noise: float

    @classmethod
    def fit(cls, columns: Columns, rows: Matrix, latency_ms: FloatArray) -> FewShotModel:
        """Learn from measured networks.

        Args:
            columns: By which `rows` were made.
            rows: Of the measured networks, shape `(n, columns)`.
            latency_ms: Their latencies, shape `(n,)`.
        """
        unit_ms = float(latency_ms.mean())
        relative = latency_ms / unit_ms
        evidence, members = [], []
        for kinds in itertools.product(*VARIANCES):
            variances = columns.variances(kinds)
            values, vectors = np.linalg.eigh((rows * variances) @ rows.T)
            turned = vectors.T @ relative
            for noise in NOISES:
                total = np.maximum(values, 0) + noise
                evidence.append(-0.5 * float((turned**2 / total + np.log(total)).sum()))
                members.append((variances, vectors / np.sqrt(total), noise))
        shares = np.exp(np.array(evidence) - max(evidence))
        shares = np.where(shares < NEGLIGIBLE, 0, shares)
        shares /= shares.sum()
        mean = np.zeros(rows.shape[1])
        second = np.zeros((rows.shape[1], rows.shape[1]))
        mean_noise = 0.0
        for share, (variances, whitening, noise) in zip(shares, members, strict=True):
            if share == 0:
                continue
            gain = (variances[:, None] * rows.T) @ whitening
            weights = gain @ (whitening.T @ relative)
            mean += share * weights
            second += share * (np.diag(variances) - gain @ gain.T + np.outer(weights, weights))
            mean_noise += share * noise
        return cls(unit_ms, mean, second - np.outer(mean, mean), mean_noise)

    def __call__(self, rows: Matrix) -> FloatArray:
        """Return latencies and how unsure they are, in milliseconds, shape `(n, 2)`."""
        variance = ((rows @ self.covariance) * rows).sum(axis=1)
        std = np.sqrt(np.maximum(variance, 0) + self.noise)
        return self.unit_ms * np.stack([rows @ self.weights, std], 1)


def design(columns: Columns, rows: Matrix, samples: int) -> list[int]:
    """Choose the architectures from whose latencies those of all others follow best.

    One after the other, each the one that takes away most of the squared covariance that is left;
    nothing needs to be measured for it (the expected variance reduction of Cohn, Neural Networks 9,
    1996).

    Args:
        columns: By which `rows` were made.
        rows: Of the architectures to choose from and to predict, shape `(n, columns)`.
        samples: How many to choose, at most `n`.

    Returns:
        Positions of the chosen ones, the most telling first.
    """
    covariance = (rows * columns.variances(DESIGN_VARIANCES)) @ rows.T
    chosen: list[int] = []
    for _ in range(samples):
        total = covariance.diagonal() + DESIGN_NOISE
        gains = (covariance**2).sum(axis=0) / total
        gains[chosen] = -np.inf
        best = int(gains.argmax())
        chosen.append(best)
        covariance = covariance - np.outer(covariance[best], covariance[best]) / total[best]
    return chosen
