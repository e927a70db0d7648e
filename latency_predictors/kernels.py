"""A latency for each kernel that the runtime runs, after its fusion of layers.

In the manner of nn-Meter (Zhang et al., MobiSys 2021), but learned from whole networks only: see
`latency_predictors.calibration.process`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latency_predictors import PredictorSettings, register
from latency_predictors.calibration.compiled import CompiledPredictor
from latency_predictors.calibration.parts import kernels
from latency_predictors.calibration.process import PartProcess
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace


@register("kernels")
@dataclass(frozen=True, kw_only=True)
class KernelSettings(PredictorSettings):
    """Settings of the kernel model; those of every predictor."""

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Learn the kernels' latencies; see `PredictorSettings.fit`."""
        parts = kernels(space)
        process = PartProcess(parts.parts)
        return CompiledPredictor.fit("kernels", space, parts, process, genotypes, latency_ms)

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        """Keep the hyperparameters; see `PredictorSettings.refit`."""
        parts = kernels(space)
        process = PartProcess(parts.parts)
        return CompiledPredictor.refit(predictor, parts, process, genotypes, latency_ms)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`."""
        return CompiledPredictor.load(path)
