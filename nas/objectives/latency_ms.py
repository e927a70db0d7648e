"""Objective `latency_ms`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("latency_ms")
@dataclass(frozen=True, kw_only=True)
class LatencyMs(Objective):
    """Latency of one inference on the study's device, as the calibrated predictor sees it."""

    unit: ClassVar[str] = "ms"
    column: ClassVar[str] = "latency_ms_predicted"
    measured_column: ClassVar[str] = "latency_ms_measured"
    needs_predictor: ClassVar[bool] = True

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the predicted milliseconds, shape `(n,)`."""
        if facts.predictor is None:
            raise TypeError("latency_ms needs a calibrated predictor")
        return facts.predictor.predict(genotypes).mean_ms
