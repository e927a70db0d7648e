"""Exact Gaussian process regression over architectures and fidelities.

The covariance of two fully trained architectures is a Matern one with smoothness 5/2, whose
distance weighs the groups of features, plus a linear one; each architecture has a deviation of its
own besides, which no feature tells. Trainings that lack the shares `a` and `b` of the full one
differ from it by a further process, whose covariance is `a b` times a constant and a Matern part,
so that it vanishes for full trainings and learns from all (the linear truncated kernel of Wu et
al., "Practical multi-fidelity Bayesian optimization for hyperparameter tuning", UAI 2019).

The parameters maximise the posterior under wide priors. Equations: Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, sections 2.2, 4.2.1 and 5.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from nas.search.surrogates.features import Group

FloatArray = npt.NDArray[np.float64]

SMOOTH, LINEAR, OWN, PARTIAL, LENGTH = 1.0, 0.1, 0.1, 0.5, 3.0
"""Medians of the parameters' log-normal priors, for standardised features and values."""

PRIOR_WIDTH = 1.0
"""Standard deviation of the priors, in natural logarithms."""

PARTIAL_OFFSET = 3.0
"""Standard deviation of what partial training adds to all values alike."""

LEAST_OWN = 1e-2
"""The least standard deviation of an architecture's own part, which keeps matrices regular."""

FIT_STEPS = 40
"""Most iterations of the maximisation."""


@dataclass(frozen=True)
class Prepared:
    """Inputs of a covariance, scaled.

    Attributes:
        scaled: Features, each divided by its group's length scale, shape `(n, p)`.
        norms: Their squared lengths, shape `(n,)`.
        features: As they were, shape `(n, p)`.
        lacking: Share of the training that is lacking, shape `(n,)`.
    """

    scaled: FloatArray
    norms: FloatArray
    features: FloatArray
    lacking: FloatArray


@dataclass(frozen=True)
class Covariance:
    """A covariance function of inputs: features, and at last the lacking share of the training.

    Attributes:
        groups: Of the features.
        lengths: Length scale of every group.
        smooth: Standard deviation of the Matern part.
        linear: Standard deviation of the linear part for features of size 1.
        own: Standard deviation of each architecture's own part.
        partial: Standard deviation of the Matern part that partial training adds.
    """

    groups: tuple[Group, ...]
    lengths: FloatArray
    smooth: float
    linear: float
    own: float
    partial: float

    @classmethod
    def fitted(
        cls,
        groups: tuple[Group, ...],
        inputs: FloatArray,
        values: FloatArray,
        start: Covariance | None,
    ) -> Covariance:
        """Return the most probable covariance.

        Args:
            groups: Of the features.
            inputs: Shape `(n, p + 1)`.
            values: Centred, of unit spread, shape `(n,)`.
            start: Where to begin; `None` for the priors' medians.
        """
        posterior = _LogPosterior(groups, inputs, values)
        medians = posterior.medians
        found = minimize(
            posterior.negative,
            medians if start is None else start.logarithms,
            jac=True,
            method="L-BFGS-B",
            bounds=[(median - 4, median + 4) for median in medians],
            options={"maxiter": FIT_STEPS},
        )
        smooth, linear, own, partial, *lengths = np.exp(found.x)
        return cls(groups, np.array(lengths), smooth, linear, own, partial)

    @property
    def logarithms(self) -> FloatArray:
        """The parameters' logarithms, in the order in which they are fitted."""
        parameters = [self.smooth, self.linear, self.own, self.partial, *self.lengths]
        return np.log(parameters)

    @property
    def noise(self) -> float:
        """Variance that an observation has besides the covariance with others."""
        return self.own**2 + LEAST_OWN**2

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Do what covariances with the same inputs have in common."""
        scaled = np.empty((len(inputs), inputs.shape[1] - 1))
        for group, length in zip(self.groups, self.lengths, strict=True):
            scaled[:, group.columns] = inputs[:, group.columns] / length
        features = np.ascontiguousarray(inputs[:, :-1])
        return Prepared(scaled, (scaled**2).sum(axis=1), features, inputs[:, -1])

    def __call__(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the covariance of what inputs tell, without the own parts, shape `(n, m)`."""
        return self.between(self.prepare(first), self.prepare(second))

    def between(self, first: Prepared, second: Prepared) -> FloatArray:
        """Return the same for prepared inputs."""
        squares = first.norms[:, None] + second.norms - 2 * first.scaled @ second.scaled.T
        correlation = matern(np.maximum(squares, 0.0, out=squares))
        covariance = self.linear**2 * first.features @ second.features.T
        covariance += self.smooth**2 * correlation
        if first.lacking.any() and second.lacking.any():
            lacking = np.outer(first.lacking, second.lacking)
            covariance += lacking * (PARTIAL_OFFSET**2 + self.partial**2 * correlation)
        return covariance

    def variance(self, inputs: FloatArray) -> FloatArray:
        """Return the prior variance of what inputs tell, without the own parts, shape `(n,)`."""
        lacking = inputs[:, -1] ** 2 * (PARTIAL_OFFSET**2 + self.partial**2)
        variance: FloatArray = (
            self.smooth**2 + self.linear**2 * (inputs[:, :-1] ** 2).sum(axis=1) + lacking
        )
        return variance


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


class _LogPosterior:
    """The posterior of a covariance's parameters, given observations."""

    def __init__(self, groups: tuple[Group, ...], inputs: FloatArray, values: FloatArray) -> None:
        columns = [inputs[:, group.columns] for group in groups]
        self._squares = [squared_distances(part, part) for part in columns]
        self._product = inputs[:, :-1] @ inputs[:, :-1].T
        self._lacking = np.outer(inputs[:, -1], inputs[:, -1])
        self._values = values
        self._unit = np.eye(len(values))
        self.medians = np.log([SMOOTH, LINEAR, OWN, PARTIAL, *[LENGTH] * len(groups)])

    def negative(self, logarithms: FloatArray) -> tuple[float, FloatArray]:
        """Return the negative logarithm, but for a constant, and its gradient."""
        smooth, linear, own, partial = np.exp(2 * logarithms[:4])
        weights = np.exp(-2 * logarithms[4:])
        squares = [w * s for w, s in zip(weights, self._squares, strict=True)]
        root = np.sqrt(5 * np.sum(squares, axis=0))
        decay = np.exp(-root)
        correlation = (1 + root + root * root / 3) * decay
        amplitude = smooth + partial * self._lacking
        covariance = amplitude * correlation + linear * self._product
        covariance += PARTIAL_OFFSET**2 * self._lacking + (own + LEAST_OWN**2) * self._unit
        factor = cholesky(covariance, lower=True, check_finite=False)
        inverse = cho_solve((factor, True), self._unit, check_finite=False)
        alpha = inverse @ self._values
        outer = inverse - np.outer(alpha, alpha)
        slope = outer * amplitude * (1 + root) * decay * (5 / 3)
        gradient = [
            smooth * np.vdot(outer, correlation),
            linear * np.vdot(outer, self._product),
            own * np.trace(outer),
            partial * np.vdot(outer, self._lacking * correlation),
            *(np.vdot(slope, s) / 2 for s in squares),
        ]
        deviation = (logarithms - self.medians) / PRIOR_WIDTH
        value = self._values @ alpha / 2 + np.log(np.diag(factor)).sum()
        value += deviation @ deviation / 2
        return float(value), np.array(gradient) + deviation / PRIOR_WIDTH


class MultiFidelityGaussianProcess:
    """A process that was conditioned on observations, to which more can be added.

    Adding one extends the Cholesky factor by a row, which costs far less than a new one.
    """

    def __init__(self, covariance: Covariance, width: int) -> None:
        """Begin without observations, of which each has `width` inputs."""
        self.covariance = covariance
        self.inputs = np.empty((0, width))
        self.factor = np.empty((0, 0))
        self.whitened = np.empty(0)

    def add(self, inputs: FloatArray, values: FloatArray) -> None:
        """Condition on further observations, shapes `(b, p + 1)` and `(b,)`."""
        known, new = len(self.inputs), len(inputs)
        across = self.across(inputs)
        factor = np.zeros((known + new, known + new))
        factor[:known, :known] = self.factor
        factor[known:, :known] = across.T
        corner = self.corner(inputs, across)
        factor[known:, known:] = corner
        rest = values - across.T @ self.whitened
        whitened = solve_triangular(corner, rest, lower=True, check_finite=False)
        self.whitened = np.concatenate([self.whitened, whitened])
        self.inputs = np.vstack([self.inputs, inputs])
        self.factor = factor

    def across(self, inputs: FloatArray) -> FloatArray:
        """Return the whitened covariance of the observations with others, shape `(n, b)`."""
        covariance = self.covariance(self.inputs, inputs)
        solved: FloatArray = solve_triangular(
            self.factor, covariance, lower=True, check_finite=False
        )
        return solved

    def corner(self, inputs: FloatArray, across: FloatArray) -> FloatArray:
        """Return the Cholesky factor of what the observations leave open of others, `(b, b)`."""
        left = self.covariance(inputs, inputs) - across.T @ across
        left[np.diag_indices(len(left))] += self.covariance.noise
        factor: FloatArray = cholesky(left, lower=True, check_finite=False)
        return factor


class CandidatePosterior:
    """A Gaussian process at fixed candidates, which follows the observations added to it.

    Attributes:
        mean: Predicted values, shape `(c,)`.
        variance: Of the values, own parts included, shape `(c,)`.
    """

    def __init__(self, process: MultiFidelityGaussianProcess, candidates: FloatArray) -> None:
        """Predict at the inputs of `candidates`, shape `(c, p + 1)`."""
        self._process = process
        self._candidates = process.covariance.prepare(candidates)
        # In single precision, which halves what 1,000 observations of 50,000 candidates take.
        self._rows = np.empty((len(process.inputs), len(candidates)), np.float32)
        self._taken = 0
        self.mean = np.zeros(len(candidates))
        self.variance = process.covariance.variance(candidates) + process.covariance.noise
        self.follow()

    def follow(self) -> None:
        """Take in the observations that the process has got meanwhile."""
        process, known, count = self._process, self._taken, len(self._process.inputs)
        if known == count:
            return
        factor = process.factor[known:]
        rows = self._whitened(process.inputs[known:], factor[:, :known].T, factor[:, known:])
        self.mean += process.whitened[known:] @ rows
        self.variance -= (rows**2).sum(axis=0)
        if count > len(self._rows):
            grown = np.empty((count + count // 8, self._rows.shape[1]), np.float32)
            grown[:known] = self._rows[:known]
            self._rows = grown
        self._rows[known:count] = rows
        self._taken = count

    def variance_after(self, inputs: FloatArray) -> FloatArray:
        """Return the variance that further observations would leave, whatever their values.

        This is what a kriging believer (Ginsbourger et al., 2010) leaves open: it takes the
        predicted means for values, so that the mean stays.

        Args:
            inputs: Of architectures under evaluation, shape `(b, p + 1)`.
        """
        if len(inputs) == 0:
            return self.variance
        across = self._process.across(inputs)
        rows = self._whitened(inputs, across, self._process.corner(inputs, across))
        variance: FloatArray = self.variance - (rows**2).sum(axis=0)
        return variance

    def _whitened(self, inputs: FloatArray, across: FloatArray, corner: FloatArray) -> FloatArray:
        """Return the rows that observations add, after those of earlier ones, shape `(b, c)`.

        Args:
            inputs: Of the observations, shape `(b, p + 1)`.
            across: Their covariance with the earlier ones, whitened, shape `(n, b)`.
            corner: Cholesky factor of what the earlier ones leave open of them, shape `(b, b)`.
        """
        covariance = self._process.covariance
        left = covariance.between(covariance.prepare(inputs), self._candidates)
        if self._taken:
            left -= across.T.astype(np.float32) @ self._rows[: self._taken]
        rows: FloatArray = solve_triangular(corner, left, lower=True, check_finite=False)
        return rows
