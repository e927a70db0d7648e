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
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from nas.core.prediction import FloatArray
from nas.search.surrogates.features import Group

SMOOTH, LINEAR, OWN, PARTIAL, LENGTH = 1.0, 0.1, 0.1, 0.5, 3.0
"""Medians of the parameters' log-normal priors, for standardised features and values."""

LINEAR_IN_GENES = 1.0
"""Median of `LINEAR` where all features are of genes, whose effects add up for the most part."""

PRIOR_WIDTH = 1.0
"""Standard deviation of the priors, in natural logarithms."""

PARTIAL_OFFSET = 3.0
"""Standard deviation of what partial training adds to all values alike."""

LEAST_OWN = 1e-2
"""The least standard deviation of an architecture's own part, which keeps matrices regular."""

FIT_STEPS = 40
"""Most iterations of the maximisation."""


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
    def typical(cls, groups: tuple[Group, ...]) -> Covariance:
        """Return the covariance whose parameters are the priors' medians."""
        linear = LINEAR_IN_GENES if all(group.of_genes for group in groups) else LINEAR
        return cls(groups, np.full(len(groups), LENGTH), SMOOTH, linear, OWN, PARTIAL)

    @property
    def parameters(self) -> FloatArray:
        """What is fitted: `smooth`, `linear`, `own`, `partial`, then `lengths`."""
        return np.array([self.smooth, self.linear, self.own, self.partial, *self.lengths])

    def fitted(self, inputs: FloatArray, values: FloatArray) -> Covariance:
        """Return the most probable covariance, searched from this one.

        Args:
            inputs: Shape `(n, p + 1)`.
            values: Centred, of unit spread, shape `(n,)`.
        """
        posterior = _LogPosterior(self.groups, inputs, values)
        found = minimize(
            posterior.negative,
            np.log(self.parameters),
            jac=True,
            method="L-BFGS-B",
            bounds=[(median - 4, median + 4) for median in posterior.medians],
            options={"maxiter": FIT_STEPS},
        )
        smooth, linear, own, partial, *lengths = np.exp(found.x)
        return Covariance(self.groups, np.array(lengths), smooth, linear, own, partial)

    @property
    def noise(self) -> float:
        """Variance that an observation has besides the covariance with others."""
        return self.own**2 + LEAST_OWN**2

    def __call__(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the covariance of what inputs tell, without the own parts, shape `(n, m)`."""
        correlation = matern(squared_distances(self._scaled(first), self._scaled(second)))
        covariance: FloatArray = self.linear**2 * first[:, :-1] @ second[:, :-1].T
        covariance += self.smooth**2 * correlation
        if first[:, -1].any() and second[:, -1].any():
            lacking = np.outer(first[:, -1], second[:, -1])
            covariance += lacking * (PARTIAL_OFFSET**2 + self.partial**2 * correlation)
        return covariance

    def variance(self, inputs: FloatArray) -> FloatArray:
        """Return the prior variance of what inputs tell, without the own parts, shape `(n,)`."""
        lacking = inputs[:, -1] ** 2 * (PARTIAL_OFFSET**2 + self.partial**2)
        variance: FloatArray = (
            self.smooth**2 + self.linear**2 * (inputs[:, :-1] ** 2).sum(axis=1) + lacking
        )
        return variance

    def _scaled(self, inputs: FloatArray) -> FloatArray:
        scaled = np.empty((len(inputs), inputs.shape[1] - 1))
        for group, length in zip(self.groups, self.lengths, strict=True):
            scaled[:, group.columns] = inputs[:, group.columns] / length
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


class _LogPosterior:
    """The posterior of a covariance's parameters, given observations."""

    def __init__(self, groups: tuple[Group, ...], inputs: FloatArray, values: FloatArray) -> None:
        columns = [inputs[:, group.columns] for group in groups]
        self._squares = [squared_distances(part, part) for part in columns]
        self._product = inputs[:, :-1] @ inputs[:, :-1].T
        self._lacking = np.outer(inputs[:, -1], inputs[:, -1])
        self._values = values
        self._unit = np.eye(len(values))
        self.medians = np.log(Covariance.typical(groups).parameters)

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


class GaussianProcess:
    """A Gaussian process that was conditioned on observations.

    Architectures under evaluation are taken to turn out as predicted (a kriging believer:
    Ginsbourger et al., 2010), so that they lower the variance and leave the mean.

    Attributes:
        inputs: Of the observations, then of architectures under evaluation.
    """

    def __init__(
        self,
        covariance: Covariance,
        inputs: FloatArray,
        values: FloatArray,
        pending: FloatArray | None = None,
    ) -> None:
        """Condition a process.

        Args:
            covariance: Its covariance function.
            inputs: Of the observations, shape `(n, p + 1)`.
            values: Observed, shape `(n,)`.
            pending: Inputs of architectures under evaluation, shape `(b, p + 1)`.
        """
        self.inputs = inputs if pending is None else np.vstack([inputs, pending])
        self._covariance = covariance
        matrix = covariance(self.inputs, self.inputs)
        matrix[np.diag_indices(len(matrix))] += covariance.noise
        self._factor = cholesky(matrix, lower=True, check_finite=False)
        n = len(inputs)
        self._whitened = np.zeros(len(self.inputs))
        self._whitened[:n] = solve_triangular(
            self._factor[:n, :n], values, lower=True, check_finite=False
        )

    def rows(self, candidates: FloatArray, known: FloatArray | None = None) -> FloatArray:
        """Return the whitened covariance of `inputs` with those of candidates.

        Args:
            candidates: Shape `(c, p + 1)`.
            known: First rows of the result, from a process that was conditioned on fewer
                observations and had the same covariance function.

        Returns:
            Shape `(n + b, c)`, in single precision, which halves what 1,000 observations of 50,000
            candidates take.
        """
        if known is None:
            known = np.empty((0, len(candidates)), np.float32)
        k = len(known)
        left = self._covariance(self.inputs[k:], candidates)
        left -= self._factor[k:, :k].astype(np.float32) @ known
        corner = self._factor[k:, k:]
        new = solve_triangular(corner, left, lower=True, overwrite_b=True, check_finite=False)
        return np.vstack([known, new.astype(np.float32)])

    def predict(
        self, candidates: FloatArray, rows: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Return the mean and the variance of values, own parts included, each of shape `(c,)`.

        Args:
            candidates: Shape `(c, p + 1)`.
            rows: Those of the candidates, where they have been computed.
        """
        rows = self.rows(candidates) if rows is None else rows
        explained = np.einsum("nc,nc->c", rows, rows)
        prior = self._covariance.variance(candidates) + self._covariance.noise
        mean = self._whitened.astype(np.float32) @ rows  # else NumPy copies the rows as doubles
        return mean.astype(float), prior - explained
