"""The predictor that explains the samples best, chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_predictors import PredictorSettings, get, names, register
from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace


@register("auto")
@dataclass(frozen=True, kw_only=True)
class AutoSettings(PredictorSettings):
    """Settings of the choice. What is chosen is saved, and loaded, under its own name.

    Attributes:
        candidates: Names of the predictors to choose from.
    """

    candidates: tuple[str, ...] = ("kernels", "block_table", "gaussian_process", "macs")

    def __post_init__(self) -> None:
        super().__post_init__()
        others = [name for name in names() if name != "auto"]
        if not self.candidates or not set(self.candidates) <= set(others):
            got, expected = list(self.candidates), "some of " + ", ".join(others)
            raise ConfigError("latency_predictor.candidates", got, expected)

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Fit all candidates and return the best; its `compared` says why it was chosen.

        Raises:
            ConfigError: None of them can be fitted to this space.
        """
        fitted, refused = {}, []
        for name in self.candidates:
            try:
                fitted[name] = get(name).fit(space, genotypes, latency_ms)
            except ConfigError as error:
                # A space may be too entangled for tables; there are others to choose from.
                refused.append(str(error))
        if not fitted:
            expected = "a predictor that can be fitted to the space"
            got, why = list(self.candidates), "; ".join(refused)
            raise ConfigError("latency_predictor.candidates", got, expected, why)
        errors = {
            name: float(np.sqrt(np.mean(predictor.held_out_errors() ** 2)))
            for name, predictor in fitted.items()
        }
        best = fitted[min(errors, key=errors.__getitem__)]
        best.compared = errors
        return best

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        """Fit the elected one again, without another election."""
        elected = min(predictor.compared, key=predictor.compared.__getitem__)
        refitted = get(elected).refit(predictor, space, genotypes, latency_ms)
        refitted.compared = predictor.compared
        return refitted
