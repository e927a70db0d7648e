"""Regressions on what is known of an architecture without its kernels, for spaces of any kind.

The baseline of every comparison is in proportion to multiply-accumulate operations; ridge
regression, the plain learned predictor, sees the one-hot encoding of the genes.

The Gaussian process sees the genes and the costs of a network. What is predicted is the latency's
logarithm, so that errors are relative. The covariance is the sum of a linear one and a squared
exponential one; see Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
chapters 2 and 5. Its parameters maximise their posterior: with the likelihood of few samples alone,
a part of the covariance that they do not need would run off to the end of its range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from latency_predictors import register
from latency_predictors.calibration.base import Regression, RegressionSettings
from nas.core.errors import ConfigError
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

PENALTIES = np.logspace(-3, 3, 13)
"""Of ridge regression, of which leave-one-out chooses."""


DRAWN = 64
"""Random networks of which it is seen whether all are deployed in one way."""


class MacsRegression(Regression):
    """A straight line, fitted to relative errors."""

    name = "macs"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return one and the MACs, shape `(n, 2)`."""
        macs = self.space.costs(genotypes)["macs_m"].to_numpy()
        return np.stack([np.ones(len(macs)), macs], 1)

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        from scipy.optimize import nnls

        self._line, _ = nnls(features / latency_ms[:, None], np.ones(len(latency_ms)))
        errors = features @ self._line / latency_ms - 1
        self._spread = float(np.sqrt(np.mean(errors**2))) + 1e-6

    def evaluate(self, features: FloatArray) -> FloatArray:
        mean_ms = features @ self._line
        return np.stack([mean_ms, self._spread * mean_ms], 1)


@register("macs")
@dataclass(frozen=True, kw_only=True)
class MacsSettings(RegressionSettings):
    """Settings of the baseline; those of every predictor."""

    regression: ClassVar[type[Regression]] = MacsRegression

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Fit to measured networks; see `PredictorSettings.fit`.

        Raises:
            ConfigError: They, or random networks of the space, are deployed in several ways, such
                as in several precisions, which operations do not tell apart.
        """
        drawn = space.samples(DRAWN, np.random.default_rng(0)).tolist()
        deployed = space.deployment(genotypes[0])
        if any(space.deployment(genotype) != deployed for genotype in [*genotypes, *drawn]):
            expected = "another predictor, such as auto, for networks deployed in several ways"
            fix = "they have equal operations in different precisions, for example"
            raise ConfigError("latency_predictor", "macs", expected, fix)
        return super().fit(space, genotypes, latency_ms)


class RidgeRegression(Regression):
    """Ridge regression, its penalty by leave-one-out."""

    name = "ridge"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return the one-hot encoding of the genes."""
        return self.space.one_hot(genotypes)

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        from sklearn.linear_model import RidgeCV

        self._model = RidgeCV(PENALTIES).fit(features, np.log(latency_ms))
        errors = self._model.predict(features) - np.log(latency_ms)
        self._spread = float(np.sqrt(np.mean(errors**2))) + 1e-6

    def evaluate(self, features: FloatArray) -> FloatArray:
        mean_ms = np.exp(self._model.predict(features))
        return np.stack([mean_ms, self._spread * mean_ms], 1)


@register("ridge")
@dataclass(frozen=True, kw_only=True)
class RidgeSettings(RegressionSettings):
    """Settings of the regression; those of every predictor."""

    regression: ClassVar[type[Regression]] = RidgeRegression


class EncodingRegression(Regression):
    """A Gaussian process that was fitted to samples.

    Attributes:
        process: Of the last fit.
    """

    name = "gaussian_process"
    process: Any

    def __init__(
        self,
        space: SearchSpace,
        genotypes: Sequence[Genotype] | IntArray,
        latency_ms: FloatArray,
        kernel: Any = None,
    ) -> None:
        """Fit to samples; under the parameters of a fitted `kernel` where one is given."""
        self._kernel = kernel
        super().__init__(space, genotypes, latency_ms)

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return costs, their logarithms, and the one-hot encoding of the genes."""
        costs = self.space.costs(genotypes).to_numpy()
        return np.hstack([costs, np.log(np.maximum(costs, 1e-9)), self.space.one_hot(genotypes)])

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

        self._centre, spread = features.mean(axis=0), features.std(axis=0)
        self._spread = np.where(spread > 0, spread, np.inf)
        logarithms = np.log(latency_ms)
        self._mean = float(logarithms.mean())
        # Inputs and logarithms are centred, so the linear part needs no offset.
        linear = ConstantKernel(LINEAR_VARIANCE, BOUNDS) * DotProduct(0.0, "fixed")
        smooth = ConstantKernel(SMOOTH_VARIANCE, BOUNDS) * RBF(LENGTH, BOUNDS)
        self.process = GaussianProcessRegressor(
            linear + smooth if self._kernel is None else self._kernel,
            alpha=RELATIVE_NOISE**2,
            optimizer=_maximise_posterior if self._kernel is None else None,
        )
        self.process.fit((features - self._centre) / self._spread, logarithms - self._mean)

    def evaluate(self, features: FloatArray) -> FloatArray:
        inputs = (features - self._centre) / self._spread
        mean, std = self.process.predict(inputs, return_std=True)
        mean_ms = np.exp(mean + self._mean)
        return np.stack([mean_ms, (std + RELATIVE_NOISE) * mean_ms], 1)


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
        assert isinstance(predictor, EncodingRegression)
        return EncodingRegression(space, genotypes, latency_ms, predictor.process.kernel_)


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
