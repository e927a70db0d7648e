"""Objective `counted_memory_mb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("counted_memory_mb")
@dataclass(frozen=True, kw_only=True)
class CountedMemoryMb(Objective):
    """Memory of one inference: weights and the most activations alive at once, counted.

    It needs no device, and it is less than what a runtime takes.
    """

    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "counted_memory_mb"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the counted megabytes (10^6 bytes), shape `(n,)`."""
        costs = facts.costs(genotypes)
        return (costs["model_size_mb"] + costs["peak_activation_mb"]).to_numpy(float)
