"""A latency for each block: the look-up table of ProxylessNAS and Once-for-All.

(Cai et al., ICLR 2019 and 2020.) There every block is measured by itself; here the table is learned
from whole networks, so that it holds what a block costs in its place. Its corrections let blocks
of one kind learn from each other; without them every block is a number of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latency_predictors import PredictorSettings, register
from latency_predictors.calibration.compiled import CompiledPredictor
from latency_predictors.calibration.parts import blocks
from latency_predictors.calibration.process import PartProcess
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace


@register("block_table")
@dataclass(frozen=True, kw_only=True)
class BlockTableSettings(PredictorSettings):
    """Settings of the block table.

    Attributes:
        corrections: Whether blocks of one kind learn from each other.
    """

    corrections: bool = True

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Learn the blocks' latencies; see `PredictorSettings.fit`."""
        parts = blocks(space)
        process = PartProcess(parts.parts, shared=self.corrections)
        return CompiledPredictor.fit("block_table", space, parts, process, genotypes, latency_ms)

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        """Keep the hyperparameters; see `PredictorSettings.refit`."""
        parts = blocks(space)
        process = PartProcess(parts.parts, shared=self.corrections)
        return CompiledPredictor.refit(predictor, parts, process, genotypes, latency_ms)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`."""
        return CompiledPredictor.load(path)
