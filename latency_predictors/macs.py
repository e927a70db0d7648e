"""Latency in proportion to multiply-accumulate operations: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from latency_predictors import register
from latency_predictors.calibration.regression import Regression, RegressionSettings
from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray


class MacsRegression(Regression):
    """A straight line, fitted to relative errors."""

    name = "macs"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return one and the MACs, shape `(n, 2)`."""
        if self.space.deployment_genes:
            genes = ", ".join(self.space.deployment_genes)
            expected = f"a predictor that tells deployments apart, for a space with {genes}"
            raise ConfigError("latency_predictor", self.name, expected)
        macs = self.space.costs(genotypes)["macs_m"].to_numpy()
        return np.stack([np.ones(len(macs)), macs], 1)

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        """Fit by least squares; see `Regression.fit`."""
        from scipy.optimize import nnls

        self._line, _ = nnls(features / latency_ms[:, None], np.ones(len(latency_ms)))
        errors = features @ self._line / latency_ms - 1
        self._spread = float(np.sqrt(np.mean(errors**2))) + 1e-6

    def evaluate(self, features: FloatArray) -> FloatArray:
        """Evaluate the line; see `Regression.evaluate`."""
        mean_ms = features @ self._line
        return np.stack([mean_ms, self._spread * mean_ms], 1)


@register("macs")
@dataclass(frozen=True, kw_only=True)
class MacsSettings(RegressionSettings):
    """Settings of the baseline; those of every predictor."""

    regression: ClassVar[type[Regression]] = MacsRegression
