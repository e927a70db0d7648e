"""A Gaussian process on the layers of an architecture.

The kernel is the sum of a linear one (latency is close to additive over layers) and a squared
exponential one (what is not: caches, parallelism); see Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, chapters 2 and 5. The noise of a measurement is proportional to the
latency. Kernel parameters maximise their posterior: with the likelihood of few samples alone, a
part of the kernel that they do not need would run off to the end of its range.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import search_spaces
from latency_predictors import PredictorSettings, register
from latency_predictors.calibration.features import features, layer_kinds
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.prediction import FloatArray, LatencyPredictor, Prediction
from nas.core.space import Genotype
from nas.network.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable

LINEAR_VARIANCE, SMOOTH_VARIANCE, LENGTH = 3e-3, 1e-3, 1.5
"""Medians of the kernel parameters' log-normal priors, for standardised inputs and latencies that
are relative to their mean: the linear part explains the latency to about 3 %."""

PRIOR_WIDTH = 2.0
"""Standard deviation of the priors, in natural logarithms."""

BOUNDS = (1e-9, 1e6)
"""Far beyond what the priors let through."""


@register("gaussian_process")
@dataclass(frozen=True, kw_only=True)
class GaussianProcessSettings(PredictorSettings):
    """Settings of the Gaussian process.

    Attributes:
        relative_noise: Standard deviation of a measurement, relative to the latency.
    """

    relative_noise: float = 0.01

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        if self.relative_noise <= 0:
            got = self.relative_noise
            raise ConfigError("latency_predictor.relative_noise", got, "more than 0")

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Fit kernel parameters and condition on the samples; see `PredictorSettings.fit`."""
        return GaussianProcess(space, genotypes, latency_ms, self.relative_noise)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`.

        Raises:
            ConfigError: Its architectures have other layers today than when it was fitted.
        """
        record = json.loads((path / "predictor.json").read_text("utf-8"))
        with np.load(path / "predictor.npz", allow_pickle=False) as arrays:
            genotypes = [tuple(map(int, row)) for row in arrays["genotypes"]]
            latency_ms = arrays["latency_ms"]
        space = search_spaces.get(**record["space"])
        if (kinds := layer_kinds(space, genotypes)) != record["layer_kinds"]:
            expected = f"a predictor that was fitted to layers {kinds}"
            raise ConfigError(str(path), record["layer_kinds"], expected, "calibrate it again")
        noise, theta = record["relative_noise"], np.array(record["log_kernel_parameters"])
        return GaussianProcess(space, genotypes, latency_ms, noise, theta)


class GaussianProcess(LatencyPredictor):
    """A fitted Gaussian process.

    It is saved as its samples and kernel parameters; conditioning on them again is a matter of
    milliseconds and cannot go out of date.
    """

    def __init__(
        self,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
        relative_noise: float,
        log_kernel_parameters: FloatArray | None = None,
    ) -> None:
        """Condition on samples.

        Args:
            space: Where the architectures come from.
            genotypes: Measured architectures.
            latency_ms: Their latencies, shape `(n,)`, in milliseconds.
            relative_noise: Of a measurement.
            log_kernel_parameters: Of an earlier fit; `None` fits them now.
        """
        self._space = space
        self._genotypes = list(genotypes)
        self._latency_ms = np.asarray(latency_ms, float)
        self._relative_noise = relative_noise
        self._kinds = layer_kinds(space, genotypes)
        raw = features(space, self._genotypes, self._kinds)
        self._varying = raw.std(axis=0) > 0
        self._centre = raw.mean(axis=0)[self._varying]
        self._spread = raw.std(axis=0)[self._varying]
        self._mean_ms = float(self._latency_ms.mean())
        self._process = self._regressor(log_kernel_parameters)
        self._process.fit(self._inputs(self._genotypes), self._latency_ms / self._mean_ms - 1)

    def predict(self, genotypes: Sequence[Genotype]) -> Prediction:
        """Predict latencies; see `LatencyPredictor.predict`."""
        mean, std = self._process.predict(self._inputs(genotypes), return_std=True)
        return Prediction(mean_ms=(mean + 1) * self._mean_ms, std_ms=std * self._mean_ms)

    def leave_one_out(self) -> FloatArray:
        """Return relative errors in closed form (Rasmussen and Williams, equation 5.12)."""
        factor = np.linalg.inv(self._process.L_)
        precision = np.einsum("ij,ij->j", factor, factor)
        relative: FloatArray = -self._process.alpha_ / precision * self._mean_ms / self._latency_ms
        return relative

    def save(self, path: Path) -> None:
        """Write `predictor.json` and `predictor.npz`; see `LatencyPredictor.save`."""
        path.mkdir(parents=True, exist_ok=True)
        np.savez(
            path / "predictor.npz",
            genotypes=np.array(self._genotypes, np.int64),
            latency_ms=self._latency_ms,
        )
        write_json_atomically(
            path / "predictor.json",
            {
                "predictor": "gaussian_process",
                "space": search_spaces.registry.settings(self._space),
                "relative_noise": self._relative_noise,
                "log_kernel_parameters": self._process.kernel_.theta,
                "layer_kinds": self._kinds,
            },
        )

    def _inputs(self, genotypes: Sequence[Genotype]) -> FloatArray:
        raw = features(self._space, genotypes, self._kinds)[:, self._varying]
        inputs: FloatArray = (raw - self._centre) / self._spread
        return inputs

    def _regressor(self, theta: FloatArray | None) -> Any:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

        # Inputs and latencies are centred, so the linear part needs no offset.
        linear = ConstantKernel(LINEAR_VARIANCE, BOUNDS) * DotProduct(0.0, "fixed")
        smooth = ConstantKernel(SMOOTH_VARIANCE, BOUNDS) * RBF(LENGTH, BOUNDS)
        kernel = linear + smooth
        fitted = theta is not None
        return GaussianProcessRegressor(
            kernel.clone_with_theta(theta) if fitted else kernel,
            alpha=(self._relative_noise * self._latency_ms / self._mean_ms) ** 2,
            optimizer=None if fitted else _maximise_posterior,
        )


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
