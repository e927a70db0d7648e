"""Latencies of parts, learned from latencies of whole networks.

A network's latency is the sum over its parts. By how much a part deviates from its roofline is a
Gaussian process over the logarithms of its sizes, so that parts that were never measured learn
from similar ones; by how much a network deviates from the sum is one over its totals. Only whole
networks are observed; a sum over a Gaussian process is Gaussian, so the parts follow in closed
form (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from latency_predictors.calibration.deviation import TOTALS, NetworkDeviation
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

FOLDS = 10
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


class Learned:
    """What is known of parts and networks.

    Attributes:
        columns: Of every part of the process; see `columns_of`.
        deviation: Of whole networks from their parts' sum.
    """

    def __init__(self, state: _State, log: torch.Tensor) -> None:
        """Condition on the samples of `state` under hyperparameters, in logarithms."""
        self._state, self._log = state, log
        self._factor = torch.linalg.cholesky(state.covariance(log))
        self._weights = torch.cholesky_solve(state.residual[:, None], self._factor)[:, 0]
        self.columns = self._columns(state.features, state.encoded)
        self.deviation = state.deviation(log, self._weights)

    @one_thread()
    def columns_of(self, parts: Sequence[Kernel]) -> FloatArray:
        """Return what is known of parts, which may be new ones.

        Returns:
            Shape `(parts, 5)`: latency, how unsure that is with the share of a measurement's
            noise (both in milliseconds), and what the part adds to the totals.
        """
        process = self._state.process
        return self._columns(process.features(parts), process.similarity.encode(parts))

    def _columns(self, features: FloatArray, encoded: Encoded) -> FloatArray:
        state, log = self._state, self._log
        roofline_ms = features @ state.rates
        scale = np.maximum(roofline_ms, state.floor)
        cross = state.parts_covariance(log, encoded) @ state.scaled.T
        explained = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        amplitude, _, kind = _scales(log)
        variance = amplitude**2 + kind**2 - (explained**2).sum(0)
        # A part alone may come out below 0: only sums were observed.
        mean_ms = roofline_ms + scale * (cross @ self._weights).numpy()
        std_ms = scale * variance.clamp(min=0).sqrt().numpy()
        std_ms += float(log[NOISE].exp()) * np.abs(mean_ms)
        return np.column_stack([mean_ms, std_ms, state.adds(features)])

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
        """Learn the kinds of the parts."""
        self.features = RooflineFeatures(self.parts)
        self.similarity = Similarity(shared=self.shared)

    @one_thread()
    def fit(self, counts: FloatArray, latency_ms: FloatArray) -> Learned:
        """Fit to measured networks.

        Args:
            counts: How often each part occurs in each network, shape `(n, parts)`.
            latency_ms: Measured, shape `(n,)`.
        """
        self._log = self._most_probable(counts, latency_ms)
        return self._condition(counts, latency_ms)

    @property
    def hyperparameters(self) -> FloatArray:
        """What `fit` has found beside latencies, in logarithms."""
        return np.array(self._log.tolist())

    @one_thread()
    def condition(
        self, hyperparameters: FloatArray, counts: FloatArray, latency_ms: FloatArray
    ) -> Learned:
        """Fit to measured networks as `fit` does, under hyperparameters that it found before."""
        self._log = torch.as_tensor(hyperparameters)
        return self._condition(counts, latency_ms)

    @one_thread()
    def cross_validate(self, counts: FloatArray, latency_ms: FloatArray) -> FloatArray:
        """Return mean and deviation of each sample, predicted without it, shape `(n, 2)`.

        Samples are left out in `FOLDS` portions. Everything is learned anew each time, the
        hyperparameters too: those of the last `fit` have seen the samples that are left out.
        """
        n = len(latency_ms)
        predicted = np.empty((n, 2))
        everything = self._log
        for fold, rest in _folds(n):
            left = counts[rest], latency_ms[rest]
            self._log = self._most_probable(*left, start=everything, iterations=REFINING)
            known = self._condition(*left)
            predicted[fold] = known.networks(counts[fold] @ known.columns)
        self._log = everything
        return predicted

    def _most_probable(
        self,
        counts: FloatArray,
        latency_ms: FloatArray,
        *,
        start: torch.Tensor | None = None,
        iterations: int = ITERATIONS,
    ) -> torch.Tensor:
        """Return the logarithms of the hyperparameters of greatest posterior probability."""
        from scipy.optimize import minimize

        state = _State(self, counts, latency_ms)
        lengths = self.similarity.dimensions + (len(TOTALS) if self.shared else 0)
        medians = [PRIOR[i] for i in sorted(PRIOR)] + [PRIOR_LENGTH] * lengths
        prior = torch.tensor(medians, dtype=torch.float64).log()

        def negative_log_posterior(values: FloatArray) -> tuple[float, FloatArray]:
            log = torch.tensor(values, dtype=torch.float64, requires_grad=True)
            factor = torch.linalg.cholesky(state.covariance(log))
            white = torch.linalg.solve_triangular(factor, state.residual[:, None], upper=False)
            loss = 0.5 * (white**2).sum() + factor.diagonal().log().sum()
            loss = loss + 0.5 * (((log - prior) / PRIOR_WIDTH) ** 2).sum()
            (gradient,) = torch.autograd.grad(loss, log)
            return float(loss.detach()), gradient.numpy()

        found = minimize(
            negative_log_posterior,
            (prior if start is None else start).numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(value - BOUND, value + BOUND) for value in prior.tolist()],
            options={"maxiter": iterations},
        )
        return torch.tensor(found.x, dtype=torch.float64)

    def _condition(self, counts: FloatArray, latency_ms: FloatArray) -> Learned:
        return Learned(_State(self, counts, latency_ms), self._log)


@one_thread()
def roofline_error(parts: Sequence[Kernel], counts: FloatArray, latency_ms: FloatArray) -> float:
    """Return the root mean square of the relative errors of rooflines alone, by cross-validation.

    Args:
        parts: All of them.
        counts: How often each part occurs in each network, shape `(n, parts)`.
        latency_ms: Measured, shape `(n,)`.
    """
    features = RooflineFeatures(parts)(parts)
    errors = np.empty(len(latency_ms))
    for fold, rest in _folds(len(latency_ms)):
        fitted = counts[fold] @ features @ roofline_rates(features, counts[rest], latency_ms[rest])
        errors[fold] = fitted / latency_ms[fold] - 1
    return float(np.sqrt(np.mean(errors**2)))


def _folds(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions that are left out, and the rest, for every fold."""
    order = np.random.default_rng(0).permutation(n)
    return [(f, np.setdiff1d(order, f)) for f in np.array_split(order, min(FOLDS, n))]


def _scales(log: torch.Tensor) -> torch.Tensor:
    return log[[PART, EPILOGUE, KIND]].exp()


class _State:
    """Samples in the form that the process needs."""

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
        self._used = self.encoded[torch.as_tensor(used)]
        scale = np.maximum(roofline_ms, self.floor)
        self.scaled = torch.as_tensor(counts[:, used] * scale[used])
        self.residual = torch.as_tensor(latency_ms - counts @ roofline_ms)

    def adds(self, features: FloatArray) -> FloatArray:
        """Return what parts add to the totals of a network, shape `(parts, 3)`."""
        return np.column_stack([features @ self.rates, features[:, -SHARED], features[:, -1]])

    @cached_property
    def _unit(self) -> NetworkDeviation:
        """Totals in units of their spread over the samples."""
        logs = NetworkDeviation.none().scaled(self._totals)
        spread = np.maximum(logs.std(axis=0), 1e-6)
        samples = (logs - logs.mean(axis=0)) / spread
        return NetworkDeviation(logs.mean(axis=0), spread, samples, np.zeros(len(logs)), 0.0)

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
        scaled = torch.as_tensor(self._unit.samples) / log[-len(TOTALS) :].exp()
        roofline_ms = torch.as_tensor(self._totals[:, 0])
        alike = torch.outer(roofline_ms, roofline_ms) * squared_exponential(scaled, scaled)
        return covariance + log[NETWORK].exp() ** 2 * alike

    def deviation(self, log: torch.Tensor, weights: torch.Tensor) -> NetworkDeviation:
        """Return the deviation of networks, given the samples' weights, shape `(n,)`."""
        if not self.process.shared:
            return NetworkDeviation.none()
        length, amplitude = log[-len(TOTALS) :].exp().numpy(), float(log[NETWORK].exp())
        unit = self._unit
        return NetworkDeviation(
            centre=unit.centre,
            length=unit.length * length,
            samples=unit.samples / length,
            weights=amplitude**2 * self._totals[:, 0] * weights.numpy(),
            amplitude=amplitude,
        )
