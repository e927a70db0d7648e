"""Latencies of parts, learned from latencies of whole networks.

A network's latency is the sum over its parts. By how much a part deviates from its roofline is a
Gaussian process over the logarithms of its sizes, so that parts that were never measured learn
from similar ones; by how much a network deviates from the sum is one over its totals: the more
weights and calls a network has, the less of them stays in the caches from one inference to the
next, so that the same part takes longer in a larger network. Only whole networks are observed; a
sum over a Gaussian process is Gaussian, so the parts follow in closed form (Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latency_predictors.calibration.base import folds
from latency_predictors.calibration.fusion import Kernel
from latency_predictors.calibration.roofline import (
    SHARED,
    Encoded,
    RooflineFeatures,
    Similarity,
    roofline_rates,
    squared_exponential,
)
from nas.core.host import one_thread
from nas.core.prediction import FloatArray

ITERATIONS = 40
REFINING = 10
"""Iterations that find the hyperparameters again when a few samples are left out."""

NOISE, EPILOGUE, PART, KIND, NETWORK = range(5)
PRIOR = {NOISE: 0.004, PART: 0.2, EPILOGUE: 1.0, KIND: 0.05, NETWORK: 0.03}
"""Medians of the hyperparameters' log-normal priors: noise of a measurement, how little parts of
other epilogues have in common, relative deviations of a part, of a kind and of a network."""

PRIOR_LENGTH = 1.0
PRIOR_WIDTH = 0.8
BOUND = 5.0
"""Furthest from the prior's median, in logarithms."""

FLOOR = 0.05
"""Deviations are relative to a part's roofline, but at least to this share of the median one's."""

TOTALS = ("roofline_ms", "calls", "weights")
"""Sums over the parts of a network on which its deviation depends."""


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

        `totals` are of every network, shape `(n, 3)`.
        """
        scaled, samples = torch.as_tensor(self.scaled(totals)), torch.as_tensor(self.samples)
        alike = squared_exponential(scaled, samples).numpy()
        return alike @ self.weights, self.amplitude * (1 - alike.max(axis=1, initial=0))

    def scaled(self, totals: FloatArray) -> FloatArray:
        """Return totals in the units of `samples`."""
        scaled: FloatArray = (_logarithms_of(totals) - self.centre) / self.length
        return scaled


class Learned:
    """What is known of parts and networks.

    Attributes:
        hyperparameters: In logarithms.
        columns: Of every part of the process; see `columns_of`.
        deviation: Of whole networks from their parts' sum.
    """

    def __init__(self, samples: Samples, log: torch.Tensor) -> None:
        """Condition on samples under hyperparameters, in logarithms."""
        self._samples, self._log = samples, log
        self.hyperparameters: FloatArray = log.numpy()
        self._factor = torch.linalg.cholesky(samples.covariance(log))
        self._weights = torch.cholesky_solve(samples.residual[:, None], self._factor)[:, 0]
        self.columns = self._columns(samples.features, samples.encoded)
        self.deviation = samples.deviation(log, self._weights)

    @one_thread()
    def columns_of(self, parts: Sequence[Kernel]) -> FloatArray:
        """Return what is known of parts, which may be new ones.

        Returns:
            Shape `(parts, 5)`: latency, how unsure that is with the share of a measurement's
            noise (both in milliseconds), and what the part adds to the totals.
        """
        process = self._samples.process
        return self._columns(process.features(parts), process.similarity.encode(parts))

    def _columns(self, features: FloatArray, encoded: Encoded) -> FloatArray:
        samples, log = self._samples, self._log
        roofline_ms = features @ samples.rates
        scale = np.maximum(roofline_ms, samples.floor)
        cross = samples.parts_covariance(log, encoded) @ samples.scaled.T
        explained = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        amplitude, _, kind = _scales(log)
        variance = amplitude**2 + kind**2 - (explained**2).sum(0)
        # A part alone may come out below 0: only sums were observed.
        mean_ms = roofline_ms + scale * (cross @ self._weights).numpy()
        std_ms = scale * variance.clamp(min=0).sqrt().numpy()
        std_ms += float(log[NOISE].exp()) * np.abs(mean_ms)
        return np.column_stack([mean_ms, std_ms, samples.adds(features)])

    def networks(self, sums: FloatArray) -> FloatArray:
        """Return latencies of networks and how unsure they are, shape `(n, 2)`.

        Args:
            sums: Of the columns over the parts of every network, shape `(n, 5)`.
        """
        relative, unsure = self.deviation(sums[:, 2:])
        predicted: FloatArray = sums[:, :2] + sums[:, 2:3] * np.stack([relative, unsure], 1)
        return predicted


@dataclass
class PartProcess:
    """Learns the latencies of parts.

    Attributes:
        parts: That occur in the samples.
        shared: Whether parts learn from similar ones, and networks deviate from their sum; else
            each part is a number of its own.
    """

    parts: Sequence[Kernel]
    shared: bool = True

    def __post_init__(self) -> None:
        self.features = RooflineFeatures(self.parts)
        self.similarity = Similarity(shared=self.shared)
        lengths = self.similarity.dimensions + (len(TOTALS) if self.shared else 0)
        medians = [PRIOR[i] for i in sorted(PRIOR)] + [PRIOR_LENGTH] * lengths
        self.prior = np.log(medians)

    @one_thread()
    def fit(
        self,
        counts: FloatArray,
        latency_ms: FloatArray,
        *,
        start: FloatArray | None = None,
        iterations: int = ITERATIONS,
    ) -> Learned:
        """Fit to measured networks.

        Args:
            counts: How often each part occurs in each network, shape `(n, parts)`.
            latency_ms: Measured, shape `(n,)`.
            start: Hyperparameters, in logarithms, at which their search starts; `None` for the
                medians of their priors.
            iterations: Most iterations of the search.
        """
        samples = Samples(self, counts, latency_ms)
        found = samples.most_probable(self.prior if start is None else start, iterations)
        return Learned(samples, found)

    @one_thread()
    def condition(
        self, hyperparameters: FloatArray, counts: FloatArray, latency_ms: FloatArray
    ) -> Learned:
        """Fit to measured networks as `fit` does, under hyperparameters that it found before."""
        return Learned(Samples(self, counts, latency_ms), torch.as_tensor(hyperparameters))

    @one_thread()
    def cross_validate(
        self, hyperparameters: FloatArray, counts: FloatArray, latency_ms: FloatArray
    ) -> FloatArray:
        """Return mean and deviation of each sample, predicted without it, shape `(n, 2)`.

        Everything is learned anew for each fold, the hyperparameters too: those that `fit` has
        found, at which their search starts, have seen the samples that are left out.
        """
        predicted = np.empty((len(latency_ms), 2))
        for fold, rest in folds(len(latency_ms)):
            learned = self.fit(
                counts[rest], latency_ms[rest], start=hyperparameters, iterations=REFINING
            )
            predicted[fold] = learned.networks(counts[fold] @ learned.columns)
        return predicted


class Samples:
    """Measured networks in the form that the process needs."""

    def __init__(self, process: PartProcess, counts: FloatArray, latency_ms: FloatArray) -> None:
        self.process = process
        self.features = process.features(process.parts)
        self.encoded = process.similarity.encode(process.parts)
        self.rates = roofline_rates(self.features, counts, latency_ms)
        self._latency_ms = torch.as_tensor(latency_ms)
        used = np.flatnonzero(counts.any(axis=0))
        roofline_ms = self.features @ self.rates
        positive = roofline_ms[used][roofline_ms[used] > 0]
        self.floor = FLOOR * float(np.median(positive)) if len(positive) else 1e-6
        self._totals = counts @ self.adds(self.features)
        logs = _logarithms_of(self._totals)
        self._centre, self._spread = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-6)
        self._unit = (logs - self._centre) / self._spread
        self._used = self.encoded[torch.as_tensor(used)]
        scale = np.maximum(roofline_ms, self.floor)
        self.scaled = torch.as_tensor(counts[:, used] * scale[used])
        self.residual = torch.as_tensor(latency_ms - counts @ roofline_ms)

    def adds(self, features: FloatArray) -> FloatArray:
        """Return what parts add to the totals of a network, shape `(parts, 3)`."""
        return np.column_stack([features @ self.rates, features[:, -SHARED], features[:, -1]])

    def most_probable(self, start: FloatArray, iterations: int) -> torch.Tensor:
        """Return the logarithms of the hyperparameters of greatest posterior probability."""
        from scipy.optimize import minimize

        prior = torch.as_tensor(self.process.prior)

        def negative_log_posterior(values: FloatArray) -> tuple[float, FloatArray]:
            log = torch.tensor(values, dtype=torch.float64, requires_grad=True)
            factor = torch.linalg.cholesky(self.covariance(log))
            white = torch.linalg.solve_triangular(factor, self.residual[:, None], upper=False)
            loss = 0.5 * (white**2).sum() + factor.diagonal().log().sum()
            loss = loss + 0.5 * (((log - prior) / PRIOR_WIDTH) ** 2).sum()
            (gradient,) = torch.autograd.grad(loss, log)
            return float(loss.detach()), gradient.numpy()

        found = minimize(
            negative_log_posterior,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(value - BOUND, value + BOUND) for value in prior.tolist()],
            options={"maxiter": iterations},
        )
        return torch.tensor(found.x, dtype=torch.float64)

    def parts_covariance(self, log: torch.Tensor, rows: Encoded) -> torch.Tensor:
        """Return covariances of parts with those that were measured."""
        similarity = self.process.similarity
        lengths = log[len(PRIOR) : len(PRIOR) + similarity.dimensions].exp()
        return similarity.covariance(_scales(log), lengths, rows, self._used)

    def covariance(self, log: torch.Tensor) -> torch.Tensor:
        """Return the covariance of the samples, shape `(n, n)`."""
        covariance = self.scaled @ self.parts_covariance(log, self._used) @ self.scaled.T
        covariance = covariance + torch.diag((log[NOISE].exp() * self._latency_ms) ** 2)
        if not self.process.shared:
            return covariance
        scaled = torch.as_tensor(self._unit) / log[-len(TOTALS) :].exp()
        roofline_ms = torch.as_tensor(self._totals[:, 0])
        alike = torch.outer(roofline_ms, roofline_ms) * squared_exponential(scaled, scaled)
        return covariance + log[NETWORK].exp() ** 2 * alike

    def deviation(self, log: torch.Tensor, weights: torch.Tensor) -> NetworkDeviation:
        """Return the deviation of networks, given the samples' weights, shape `(n,)`."""
        if not self.process.shared:
            return NetworkDeviation.none()
        length, amplitude = log[-len(TOTALS) :].exp().numpy(), float(log[NETWORK].exp())
        return NetworkDeviation(
            centre=self._centre,
            length=self._spread * length,
            samples=self._unit / length,
            weights=amplitude**2 * self._totals[:, 0] * weights.numpy(),
            amplitude=amplitude,
        )


@one_thread()
def roofline_error(parts: Sequence[Kernel], counts: FloatArray, latency_ms: FloatArray) -> float:
    """Return the root mean square of the relative errors of rooflines alone, by cross-validation.

    The arguments are those of `PartProcess` and of its `fit`.
    """
    features = RooflineFeatures(parts)(parts)
    errors = np.empty(len(latency_ms))
    for fold, rest in folds(len(latency_ms)):
        fitted = counts[fold] @ features @ roofline_rates(features, counts[rest], latency_ms[rest])
        errors[fold] = fitted / latency_ms[fold] - 1
    return float(np.sqrt(np.mean(errors**2)))


def _scales(log: torch.Tensor) -> torch.Tensor:
    return log[[PART, EPILOGUE, KIND]].exp()


def _logarithms_of(totals: FloatArray) -> FloatArray:
    logs: FloatArray = np.log(np.maximum(totals, np.finfo(np.float32).tiny))
    return logs
