"""Objective `peak_memory_mb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("peak_memory_mb")
@dataclass(frozen=True, kw_only=True)
class PeakMemoryMb(Objective):
    """Peak memory above the runtime's own on the study's device, as calibrated."""

    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "peak_memory_mb_predicted"
    needs_memory: ClassVar[bool] = True

    @property
    def verified_column(self) -> str:
        """The measured one; see `Objective.verified_column`."""
        return "peak_memory_mb_measured"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the predicted megabytes (10^6 bytes), shape `(n,)`."""
        if facts.memory is None:
            raise TypeError("peak_memory_mb needs a calibrated predictor of memory")
        return facts.memory.predict_mb(genotypes)
