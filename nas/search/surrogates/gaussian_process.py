"""Exact Gaussian process regression with one length scale for each group of features.

The covariance of two architectures is a Matern one with smoothness 5/2, whose distance weighs the
groups of features, plus a linear one, plus an architecture's own deviation, which no feature tells.
The parameters maximise the posterior under wide priors. Equations: Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, sections 2.2, 4.2.1, 5.4.1 and 5.4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from nas.search.surrogates.features import Group

FloatArray = npt.NDArray[np.float64]

SMOOTH, LENGTH, LINEAR, OWN = 1.0, 2.0, 0.3, 0.1
"""Medians of the parameters' log-normal priors, for standardised features and values."""

PRIOR_WIDTH = 1.0
"""Standard deviation of the priors, in natural logarithms."""

LEAST_OWN = 1e-2
"""The least standard deviation of an architecture's own part, which keeps matrices regular."""

FIT_STEPS = 40
"""Most iterations of the maximisation."""


@dataclass(frozen=True)
class Covariance:
    """A covariance function.

    Attributes:
        groups: Of the features.
        lengths: Length scale of every group.
        smooth: Standard deviation of the Matern part.
        linear: Standard deviation of the linear part for features of size 1.
        own: Standard deviation of each architecture's own part.
    """

    groups: tuple[Group, ...]
    lengths: FloatArray
    smooth: float
    linear: float
    own: float

    @classmethod
    def of(cls, logarithms: FloatArray, groups: tuple[Group, ...]) -> Covariance:
        """Return the covariance with these logarithms of `smooth`, `linear`, `own`, `lengths`."""
        smooth, linear, own, *lengths = np.exp(logarithms)
        return cls(groups, np.array(lengths), smooth, linear, max(own, LEAST_OWN))

    def __call__(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the covariance of what features tell, shape `(n, m)`; not the own parts."""
        scaled = [self._scaled(features) for features in (first, second)]
        squares = squared_distances(*scaled)
        product: FloatArray = first @ second.T
        return self.smooth**2 * matern(squares) + self.linear**2 * product

    def variance(self, features: FloatArray) -> FloatArray:
        """Return the prior variance of what features tell, shape `(n,)`."""
        return self.smooth**2 + self.linear**2 * (features**2).sum(axis=1)

    def _scaled(self, features: FloatArray) -> FloatArray:
        scaled = np.empty_like(features)
        for group, length in zip(self.groups, self.lengths, strict=True):
            scaled[:, group.columns] = features[:, group.columns] / length
        return scaled


def matern(squares: FloatArray) -> FloatArray:
    """Return the Matern correlation with smoothness 5/2 at squared distances."""
    root = np.sqrt(5 * squares)
    correlation: FloatArray = (1 + root + root * root / 3) * np.exp(-root)
    return correlation


def squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return squared Euclidean distances of rows, shape `(n, m)`."""
    squares = first @ second.T
    squares *= -2
    squares += (first**2).sum(axis=1)[:, None]
    squares += (second**2).sum(axis=1)
    return np.maximum(squares, 0.0, out=squares)


def fit(
    features: FloatArray, values: FloatArray, groups: tuple[Group, ...], start: FloatArray | None
) -> FloatArray:
    """Return the logarithms of the most probable parameters; see `Covariance.of`.

    Args:
        features: Shape `(n, p)`.
        values: Centred, of unit spread, shape `(n,)`.
        groups: Of the features.
        start: Where to begin; `None` for the priors' medians.
    """
    squares = [squared_distances(features[:, g.columns], features[:, g.columns]) for g in groups]
    product = features @ features.T
    medians = np.log([SMOOTH, LINEAR, OWN, *[LENGTH] * len(groups)])
    unit = np.eye(len(values))

    def negative_log_posterior(theta: FloatArray) -> tuple[float, FloatArray]:
        smooth, linear, own = np.exp(2 * theta[:3])
        weights = np.exp(-2 * theta[3:])
        root = np.sqrt(5 * sum(w * s for w, s in zip(weights, squares, strict=True)))
        decay = np.exp(-root)
        correlation = (1 + root + root * root / 3) * decay
        covariance = smooth * correlation + linear * product + (own + LEAST_OWN**2) * unit
        factor = cholesky(covariance, lower=True, check_finite=False)
        inverse = cho_solve((factor, True), unit, check_finite=False)
        alpha = inverse @ values
        deviation = (theta - medians) / PRIOR_WIDTH
        value = 0.5 * values @ alpha + np.log(np.diag(factor)).sum() + 0.5 * deviation @ deviation
        outer = inverse - np.outer(alpha, alpha)
        slope = outer * (smooth * 5 / 3) * (1 + root) * decay
        gradient = [
            smooth * np.vdot(outer, correlation),
            linear * np.vdot(outer, product),
            own * np.trace(outer),
            *(0.5 * w * np.vdot(slope, s) for w, s in zip(weights, squares, strict=True)),
        ]
        return float(value), np.array(gradient) + deviation / PRIOR_WIDTH

    found = minimize(
        negative_log_posterior,
        medians if start is None else start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(m - 4, m + 4) for m in medians],
        options={"maxiter": FIT_STEPS},
    )
    return np.asarray(found.x)


class GaussianProcess:
    """A process that was conditioned on observations, to which more can be added.

    Adding one extends the Cholesky factor by a row, which costs far less than a new one.
    """

    def __init__(self, covariance: Covariance, width: int) -> None:
        """Begin without observations of `width` features each."""
        self.covariance = covariance
        self.features = np.empty((0, width))
        self.factor = np.empty((0, 0))
        self.whitened = np.empty(0)

    def add(self, features: FloatArray, values: FloatArray) -> None:
        """Condition on further observations, shapes `(b, p)` and `(b,)`."""
        known, new = len(self.features), len(features)
        across = self.across(features)
        factor = np.zeros((known + new, known + new))
        factor[:known, :known] = self.factor
        factor[known:, :known] = across.T
        corner = self.corner(features, across)
        factor[known:, known:] = corner
        rest = values - across.T @ self.whitened
        whitened = solve_triangular(corner, rest, lower=True, check_finite=False)
        self.whitened = np.concatenate([self.whitened, whitened])
        self.features = np.vstack([self.features, features])
        self.factor = factor

    def across(self, features: FloatArray) -> FloatArray:
        """Return the whitened covariance of the observations with others, shape `(n, b)`."""
        covariance = self.covariance(self.features, features)
        solved: FloatArray = solve_triangular(
            self.factor, covariance, lower=True, check_finite=False
        )
        return solved

    def corner(self, features: FloatArray, across: FloatArray) -> FloatArray:
        """Return the Cholesky factor of what the observations leave open of others, `(b, b)`."""
        left = self.covariance(features, features) - across.T @ across
        left[np.diag_indices(len(left))] += self.covariance.own**2
        factor: FloatArray = cholesky(left, lower=True, check_finite=False)
        return factor

    def leave_one_out(self) -> FloatArray:
        """Return what every observation's value would be predicted from all others, `(n,)`."""
        inverse = solve_triangular(self.factor, np.eye(len(self.factor)), lower=True)
        values = self.factor @ self.whitened
        alpha = inverse.T @ self.whitened
        predicted: FloatArray = values - alpha / (inverse**2).sum(axis=0)
        return predicted


class Posterior:
    """A Gaussian process at fixed candidates, which follows the observations added to it."""

    def __init__(self, process: GaussianProcess, candidates: FloatArray) -> None:
        """Predict at `candidates`, shape `(c, p)`."""
        self._process = process
        self._candidates = candidates
        # In single precision, which halves what 1,000 observations of 50,000 candidates take.
        self._rows = np.empty((0, len(candidates)), np.float32)
        self.mean = np.zeros(len(candidates))
        own = process.covariance.own**2
        self.variance = process.covariance.variance(candidates) + own

    def follow(self) -> None:
        """Take in the observations that the process has got meanwhile."""
        process, known = self._process, len(self._rows)
        if known == len(process.features):
            return
        rows = self._whitened(
            process.features[known:], process.factor[known:, :known].T, process.factor[known:, known:]
        )
        self.mean += process.whitened[known:] @ rows
        self.variance -= (rows**2).sum(axis=0)
        self._rows = np.vstack([self._rows, rows.astype(np.float32)])

    def variance_after(self, features: FloatArray) -> FloatArray:
        """Return the variance that further observations would leave, whatever their values.

        This is what a kriging believer (Ginsbourger et al., 2010) leaves open: it takes the
        predicted means for values, so that the mean stays.

        Args:
            features: Of architectures under evaluation, shape `(b, p)`.
        """
        if len(features) == 0:
            return self.variance
        across = self._process.across(features)
        rows = self._whitened(features, across, self._process.corner(features, across))
        return self.variance - (rows**2).sum(axis=0)

    def _whitened(self, features: FloatArray, across: FloatArray, corner: FloatArray) -> FloatArray:
        covariance = self._process.covariance(features, self._candidates)
        covariance -= across.T @ self._rows
        rows: FloatArray = solve_triangular(corner, covariance, lower=True, check_finite=False)
        return rows
