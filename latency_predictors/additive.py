"""Predictors that sum over the parts of a network, learned from whole networks.

`block_table` holds a latency for each block: the look-up table of ProxylessNAS and Once-for-All
(Cai et al., ICLR 2019 and 2020). There every block is measured by itself; here the table is learned
from whole networks, so that it holds what a block costs in its place. Its corrections let blocks
of one kind learn from each other; without them every block is a number of its own.

`kernels` holds a latency for each kernel that the runtime runs, after its fusion of layers: in the
manner of nn-Meter (Zhang et al., MobiSys 2021), but learned from whole networks only; see
`latency_predictors.calibration.process`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from latency_predictors import PredictorSettings, register, registry
from latency_predictors.calibration.base import CalibratedPredictor, read_saved
from latency_predictors.calibration.parts import PartTable, blocks, kernels
from latency_predictors.calibration.process import PartProcess, roofline_error
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

SMALLEST = 0.1
"""Predictions are at least this share of the smallest latency that was measured."""

BLOCK_WIDTHS = (1, 8, 16)
"""Channels of a block in the layouts of ONNX Runtime: none, 8 with AVX, 16 with AVX-512; the one
that explains the samples best is taken."""

KEPT = ("measured", "held_out", "hyperparameters", "width", "shared")
"""What stays when more samples are learned from. Intervals stay scaled by the cross-validation of
the calibration, whose samples were not chosen for being near a limit or a front."""


class PartsPredictor(CalibratedPredictor):
    """Sums the latencies of a network's parts, learned from measured networks.

    It is kept as its samples and hyperparameters, under which conditioning again takes a moment.

    Attributes:
        genotypes: Measured networks, those of the calibration first.
        refitted: What was measured of all of them.
        measured: Of those of the calibration alone, as in `held_out`.
        hyperparameters: Of the process, in logarithms.
        width: Channels of a block in the runtime's layout, as the samples tell.
        shared: Whether parts learn from similar ones.
    """

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        table: PartTable,
        genotypes: Sequence[Genotype] | IntArray,
        latency_ms: FloatArray,
        *,
        shared: bool = True,
        known: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Fit the latencies of the parts in `table` to measured networks.

        Args:
            name: Under which the predictor is registered.
            space: Of the networks.
            table: Of the parts that the networks are made of.
            genotypes: Measured networks.
            latency_ms: Their latencies, shape `(n,)`.
            shared: Whether parts learn from similar ones.
            known: Arrays of a predictor whose hyperparameters and scores are kept.
        """
        self.name, self.space, self.width, self.shared = name, space, table.width, shared
        self._table = table
        self.genotypes = space.matrix(genotypes).copy()
        self.refitted = np.asarray(latency_ms, float)
        counts = table.counts(self.genotypes)
        # In an order that does not depend on what else was looked up before.
        measured = sorted(np.flatnonzero(counts.any(axis=0)), key=lambda i: repr(table.parts[i]))
        counts = counts[:, measured]
        process = PartProcess([table.parts[i] for i in measured], shared=shared)
        if known is None:
            self._learned = process.fit(counts, self.refitted)
            self.hyperparameters = self._learned.hyperparameters
            self.measured = self.refitted
            self.held_out = process.cross_validate(self.hyperparameters, counts, self.refitted)
        else:
            self.hyperparameters = known["hyperparameters"]
            self.measured, self.held_out = known["measured"], known["held_out"]
            self._learned = process.condition(self.hyperparameters, counts, self.refitted)
        self._columns = np.zeros((0, 5))

    def estimate(self, genotypes: IntArray) -> FloatArray:
        networks = self._table.find(genotypes)
        if new := self._table.parts[len(self._columns) :]:
            self._columns = np.concatenate([self._columns, self._learned.columns_of(new)])
        mean_ms, std_ms = self._learned.networks(self._table.sums(networks, self._columns)).T
        return np.stack([np.maximum(mean_ms, SMALLEST * self.measured.min()), std_ms], 1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        kept = {name: np.asarray(getattr(self, name)) for name in KEPT}
        return {"genotypes": self.genotypes, "refitted": self.refitted} | kept

    @classmethod
    def load(
        cls, path: Path, name: str, table_of: Callable[[SearchSpace, int], PartTable]
    ) -> PartsPredictor:
        """Read what `save` wrote; `table_of` returns the parts of a space for a block's width.

        Raises:
            ConfigError: The code of the space was another.
        """
        space, known = read_saved(path)
        table, shared = table_of(space, int(known["width"])), bool(known["shared"])
        samples = known["genotypes"], known["refitted"]
        return cls(name, space, table, *samples, shared=shared, known=known)


def best_table(
    tables: Sequence[PartTable], genotypes: Sequence[Genotype], latency_ms: FloatArray
) -> PartTable:
    """Return the table whose parts explain the samples best by their rooflines alone."""

    def error(table: PartTable) -> float:
        counts = table.counts(genotypes)
        return roofline_error(table.parts, counts, np.asarray(latency_ms, float))

    return min(tables, key=error) if len(tables) > 1 else tables[0]


@dataclass(frozen=True, kw_only=True)
class PartsSettings(PredictorSettings):
    """Settings of a predictor that sums over parts.

    Attributes:
        table: Returns the parts of a space, given the width of a block in the runtime's layout.
        widths: Of which the one is taken that explains the samples best.
        corrections: Whether parts of one kind learn from each other.
    """

    table: ClassVar[Callable[[SearchSpace, int], PartTable]]
    widths: ClassVar[tuple[int, ...]] = (1,)

    corrections: bool = True

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        tables = [type(self).table(space, width) for width in self.widths]
        table, name = best_table(tables, genotypes, latency_ms), registry.name_of(type(self))
        return PartsPredictor(name, space, table, genotypes, latency_ms, shared=self.corrections)

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        assert isinstance(predictor, PartsPredictor)
        table = type(self).table(space, predictor.width)
        shared, known = self.corrections, predictor.arrays()
        return PartsPredictor(
            predictor.name, space, table, genotypes, latency_ms, shared=shared, known=known
        )

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        return PartsPredictor.load(path, registry.name_of(cls), cls.table)


@register("block_table")
@dataclass(frozen=True, kw_only=True)
class BlockTableSettings(PartsSettings):
    """Settings of the block table; see `PartsSettings`."""

    table = staticmethod(blocks)


@register("kernels")
@dataclass(frozen=True, kw_only=True)
class KernelSettings(PartsSettings):
    """Settings of the kernel model; see `PartsSettings`."""

    table = staticmethod(kernels)
    widths = BLOCK_WIDTHS
