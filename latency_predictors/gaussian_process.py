"""A Gaussian process on the layers of an architecture.

The kernel is the sum of a linear one (latency is close to additive over layers) and a squared
exponential one (what is not: caches, parallelism); see Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, chapters 2 and 5. The noise of a measurement is proportional to the
latency.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import search_spaces
from latency_predictors import PredictorSettings, register
from latency_predictors.calibration.features import features, layer_kinds
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.prediction import FloatArray, LatencyPredictor, Prediction
from nas.core.space import Genotype
from nas.network.space import SearchSpace


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
        """Fit kernel parameters by marginal likelihood; see `PredictorSettings.fit`."""
        return GaussianProcess(space, genotypes, latency_ms, self.relative_noise)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`."""
        record = json.loads((path / "predictor.json").read_text("utf-8"))
        with np.load(path / "predictor.npz", allow_pickle=False) as arrays:
            genotypes = [tuple(map(int, row)) for row in arrays["genotypes"]]
            latency_ms = arrays["latency_ms"]
        space = search_spaces.get(**record["space"])
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

        linear = ConstantKernel(0.01, (1e-6, 1e2)) * DotProduct(1.0, (1e-3, 1e3))
        smooth = ConstantKernel(0.01, (1e-6, 1e2)) * RBF(5.0, (0.5, 1e3))
        kernel = linear + smooth
        fitted = theta is not None
        return GaussianProcessRegressor(
            kernel.clone_with_theta(theta) if fitted else kernel,
            alpha=(self._relative_noise * self._latency_ms / self._mean_ms) ** 2,
            optimizer=None if fitted else "fmin_l_bfgs_b",
        )
