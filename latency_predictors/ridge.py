"""Ridge regression on the one-hot encoding of the genes: the plain learned predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from latency_predictors import register
from latency_predictors.calibration.regression import Regression, RegressionSettings
from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray

PENALTIES = np.logspace(-3, 3, 13)


class RidgeRegression(Regression):
    """Ridge regression, its penalty by leave-one-out."""

    name = "ridge"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return the one-hot encoding of the genes."""
        return self.space.one_hot(genotypes)

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        """Fit logarithms of latencies; see `Regression.fit`."""
        from sklearn.linear_model import RidgeCV

        self._model = RidgeCV(PENALTIES).fit(features, np.log(latency_ms))
        errors = self._model.predict(features) - np.log(latency_ms)
        self._spread = float(np.sqrt(np.mean(errors**2))) + 1e-6

    def evaluate(self, features: FloatArray) -> FloatArray:
        """Evaluate the regression; see `Regression.evaluate`."""
        mean_ms = np.exp(self._model.predict(features))
        return np.stack([mean_ms, self._spread * mean_ms], 1)


@register("ridge")
@dataclass(frozen=True, kw_only=True)
class RidgeSettings(RegressionSettings):
    """Settings of the regression; those of every predictor."""

    regression: ClassVar[type[Regression]] = RidgeRegression
