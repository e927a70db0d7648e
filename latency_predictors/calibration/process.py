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
from latency_predictors.calibration.roofline import SHARED, roofline, roofline_features
from latency_predictors.calibration.similarity import Similarity, squared_exponential
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


@dataclass(frozen=True)
class Learned:
    """What is known of parts and networks.

    Attributes:
        columns: Of every part, shape `(parts, 5)`: its latency, how unsure that is with the share
            of a measurement's noise (both in milliseconds), and what it adds to the totals.
        deviation: Of whole networks from their parts' sum.
    """

    columns: FloatArray
    deviation: NetworkDeviation

    def networks(self, sums: FloatArray) -> FloatArray:
        """Return latencies of networks and how unsure they are, shape `(n, 2)`.

        Args:
            sums: Of the columns over the parts of every network, shape `(n, 5)`.
        """
        return of_networks(sums, self.deviation)


def of_networks(sums: FloatArray, deviation: NetworkDeviation) -> FloatArray:
    """Return latencies of networks and how unsure they are; see `Learned.networks`."""
    relative, unsure = deviation(sums[:, 2:])
    return sums[:, :2] + sums[:, 2:3] * np.stack([relative, unsure], 1)


@dataclass
class PartProcess:
    """Learns the latencies of parts.

    Attributes:
        parts: All parts of the space.
        shared: Whether parts learn from similar ones, and networks deviate from their sum; else
            each part is a number of its own.
    """

    parts: Sequence[Kernel]
    shared: bool = True

    @one_thread()
    def fit(self, counts: FloatArray, latency_ms: FloatArray) -> Learned:
        """Fit to measured networks.

        Args:
            counts: How often each part occurs in each network, shape `(n, parts)`.
            latency_ms: Measured, shape `(n,)`.
        """
        self._features = roofline_features(self.parts)
        self._similarity = Similarity(self.parts, shared=self.shared)
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
        self._features = roofline_features(self.parts)
        self._similarity = Similarity(self.parts, shared=self.shared)
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
        lengths = self._similarity.dimensions + (len(TOTALS) if self.shared else 0)
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
        state = _State(self, counts, latency_ms)
        log = self._log
        factor = torch.linalg.cholesky(state.covariance(log))
        weights = torch.cholesky_solve(state.residual[:, None], factor)[:, 0]
        cross = state.parts_covariance(log, slice(None)) @ state.scaled.T
        explained = torch.linalg.solve_triangular(factor, cross.T, upper=False)
        variance = self._similarity.variance(_scales(log)) - (explained**2).sum(0)
        mean_ms = state.roofline + state.scale * (cross @ weights).numpy()
        # A part alone may come out below 0: only sums were observed.
        std_ms = state.scale * variance.clamp(min=0).sqrt().numpy()
        std_ms += float(log[NOISE].exp()) * np.abs(mean_ms)
        columns = np.column_stack([mean_ms, std_ms, state.adds])
        return Learned(columns, state.deviation(log, weights))


@one_thread()
def roofline_error(parts: Sequence[Kernel], counts: FloatArray, latency_ms: FloatArray) -> float:
    """Return the root mean square of the relative errors of rooflines alone, by cross-validation.

    Args:
        parts: All parts of the space.
        counts: How often each part occurs in each network, shape `(n, parts)`.
        latency_ms: Measured, shape `(n,)`.
    """
    features = roofline_features(parts)
    errors = np.empty(len(latency_ms))
    for fold, rest in _folds(len(latency_ms)):
        fitted = counts[fold] @ roofline(features, counts[rest], latency_ms[rest])
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
        self._process = process
        self._latency_ms = torch.as_tensor(latency_ms)
        features = process._features
        self.roofline = roofline(features, counts, latency_ms)
        positive = self.roofline[self.roofline > 0]
        floor = FLOOR * float(np.median(positive)) if len(positive) else 1e-6
        self.scale = np.maximum(self.roofline, floor)
        self.adds = np.column_stack([self.roofline, features[:, -SHARED], features[:, -1]])
        self._totals = counts @ self.adds
        used = np.flatnonzero(counts.any(axis=0))
        self._used = torch.as_tensor(used)
        self.scaled = torch.as_tensor(counts[:, used] * self.scale[used])
        self.residual = torch.as_tensor(latency_ms - counts @ self.roofline)

    @cached_property
    def _unit(self) -> NetworkDeviation:
        """Totals in units of their spread over the samples."""
        logs = NetworkDeviation.none().scaled(self._totals)
        spread = np.maximum(logs.std(axis=0), 1e-6)
        samples = (logs - logs.mean(axis=0)) / spread
        return NetworkDeviation(logs.mean(axis=0), spread, samples, np.zeros(len(logs)), 0.0)

    def parts_covariance(self, log: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
        """Return covariances of parts with those that were measured."""
        similarity = self._process._similarity
        lengths = log[len(PRIOR) : len(PRIOR) + similarity.dimensions].exp()
        return similarity.covariance(_scales(log), lengths, rows, self._used)

    def covariance(self, log: torch.Tensor) -> torch.Tensor:
        """Return the covariance of the samples, shape `(n, n)`."""
        covariance = self.scaled @ self.parts_covariance(log, self._used) @ self.scaled.T
        covariance = covariance + torch.diag((log[NOISE].exp() * self._latency_ms) ** 2)
        if not self._process.shared:
            return covariance
        scaled = torch.as_tensor(self._unit.samples) / log[-len(TOTALS) :].exp()
        roofline_ms = torch.as_tensor(self._totals[:, 0])
        alike = torch.outer(roofline_ms, roofline_ms) * squared_exponential(scaled, scaled)
        return covariance + log[NETWORK].exp() ** 2 * alike

    def deviation(self, log: torch.Tensor, weights: torch.Tensor) -> NetworkDeviation:
        """Return the deviation of networks, given the samples' weights, shape `(n,)`."""
        if not self._process.shared:
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
