"""A Gaussian process on the encoding of an architecture, for spaces of any kind.

It sees the genes and the costs of a network, and nothing of its kernels. What is predicted is the
latency's logarithm, so that errors are relative. The covariance is the sum of a linear one and a
squared exponential one; see Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
chapters 2 and 5. Its parameters maximise their
posterior: with the likelihood of few samples alone, a part of the covariance that they do not need
would run off to the end of its range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from latency_predictors import register
from latency_predictors.calibration.regression import Regression, RegressionSettings
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

LINEAR_VARIANCE, SMOOTH_VARIANCE, LENGTH = 3e-3, 1e-2, 5.0
"""Medians of the parameters' log-normal priors, for standardised inputs."""

PRIOR_WIDTH = 2.0
"""Standard deviation of the priors, in natural logarithms."""

BOUNDS = (1e-9, 1e6)
"""Far beyond what the priors let through."""

RELATIVE_NOISE = 0.01
"""Standard deviation of a measurement, relative to the latency."""


class EncodingRegression(Regression):
    """A Gaussian process that was fitted to samples."""

    name = "gaussian_process"

    def __init__(
        self,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
        kernel: Any = None,
    ) -> None:
        """Fit to samples; under the parameters of a fitted `kernel` where one is given."""
        self._kernel = kernel
        super().__init__(space, genotypes, latency_ms)

    def refitted(self, genotypes: Sequence[Genotype], latency_ms: FloatArray) -> EncodingRegression:
        """Return the process conditioned on other samples, under the same parameters."""
        return EncodingRegression(self.space, genotypes, latency_ms, self._process.kernel_)

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return costs, their logarithms, and the one-hot encoding of the genes."""
        costs = self.space.costs(genotypes).to_numpy()
        return np.hstack([costs, np.log(np.maximum(costs, 1e-9)), self.space.one_hot(genotypes)])

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        """Condition on samples; with the most probable parameters; see `Regression.fit`."""
        self._centre, spread = features.mean(axis=0), features.std(axis=0)
        self._spread = np.where(spread > 0, spread, np.inf)
        logarithms = np.log(latency_ms)
        self._mean = float(logarithms.mean())
        self._process = self._regressor()
        self._process.fit(self._inputs(features), logarithms - self._mean)

    def evaluate(self, features: FloatArray) -> FloatArray:
        """Evaluate the process; see `Regression.evaluate`."""
        mean, std = self._process.predict(self._inputs(features), return_std=True)
        mean_ms = np.exp(mean + self._mean)
        return np.stack([mean_ms, (std + RELATIVE_NOISE) * mean_ms], 1)

    def _inputs(self, features: FloatArray) -> FloatArray:
        inputs: FloatArray = (features - self._centre) / self._spread
        return inputs

    def _regressor(self) -> Any:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

        if self._kernel is not None:
            return GaussianProcessRegressor(self._kernel, alpha=RELATIVE_NOISE**2, optimizer=None)
        # Inputs and logarithms are centred, so the linear part needs no offset.
        linear = ConstantKernel(LINEAR_VARIANCE, BOUNDS) * DotProduct(0.0, "fixed")
        smooth = ConstantKernel(SMOOTH_VARIANCE, BOUNDS) * RBF(LENGTH, BOUNDS)
        return GaussianProcessRegressor(
            linear + smooth,
            alpha=RELATIVE_NOISE**2,
            optimizer=_maximise_posterior,
        )


@register("gaussian_process")
@dataclass(frozen=True, kw_only=True)
class GaussianProcessSettings(RegressionSettings):
    """Settings of the Gaussian process; those of every predictor."""

    regression: ClassVar[type[Regression]] = EncodingRegression

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        """Keep the parameters of the covariance; see `PredictorSettings.refit`."""
        del space
        assert isinstance(predictor, EncodingRegression)
        return predictor.refitted(genotypes, latency_ms)


def _maximise_posterior(
    negative_log_likelihood: Callable[[FloatArray], tuple[float, FloatArray]],
    prior_medians: FloatArray,
    bounds: FloatArray,
) -> tuple[FloatArray, float]:
    """Return the most probable logarithms of the kernel parameters; an optimizer of scikit-learn.

    Args:
        negative_log_likelihood: Returns the value and the gradient.
        prior_medians: Logarithms at which the search starts.
        bounds: Lower and upper limits, shape `(n, 2)`.

    Returns:
        The logarithms, and the negative log posterior there.
    """
    from scipy.optimize import minimize

    def negative_log_posterior(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = negative_log_likelihood(theta)
        deviation = (theta - prior_medians) / PRIOR_WIDTH
        return value + 0.5 * float(deviation @ deviation), gradient + deviation / PRIOR_WIDTH

    start = np.array(prior_medians)
    found = minimize(negative_log_posterior, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return found.x, found.fun
