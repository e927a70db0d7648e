"""Objective `macs_m`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("macs_m")
@dataclass(frozen=True, kw_only=True)
class MacsM(Objective):
    """Multiply-accumulate operations of one inference, in millions."""

    unit: ClassVar[str] = "10^6"
    column: ClassVar[str] = "macs_m"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the counted operations in millions, shape `(n,)`."""
        return facts.costs(genotypes)["macs_m"].to_numpy(float)
