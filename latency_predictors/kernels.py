"""A latency for each kernel that the runtime runs, after its fusion of layers.

In the manner of nn-Meter (Zhang et al., MobiSys 2021), but learned from whole networks only: see
`latency_predictors.calibration.process`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency_predictors import PredictorSettings, register
from latency_predictors.calibration.compiled import CompiledPredictor
from latency_predictors.calibration.parts import Parts, kernels
from latency_predictors.calibration.process import PartProcess, roofline_error
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace

BLOCK_WIDTHS = (1, 8, 16)
"""Channels of a block in the layouts of ONNX Runtime: none, 8 with AVX, 16 with AVX-512; the one
that explains the samples best is taken."""


@register("kernels")
@dataclass(frozen=True, kw_only=True)
class KernelSettings(PredictorSettings):
    """Settings of the kernel model; those of every predictor."""

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Learn the kernels' latencies; see `PredictorSettings.fit`."""
        latency_ms = np.asarray(latency_ms, float)

        def error(parts: Parts) -> float:
            return roofline_error(parts.parts, parts.counts(genotypes), latency_ms)

        parts = min((kernels(space, width) for width in BLOCK_WIDTHS), key=error)
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
        assert isinstance(predictor, CompiledPredictor)
        parts = kernels(space, predictor.width)
        process = PartProcess(parts.parts)
        return CompiledPredictor.refit(predictor, parts, process, genotypes, latency_ms)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`."""
        return CompiledPredictor.load(path)
