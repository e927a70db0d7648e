"""Objective `params_m`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("params_m")
@dataclass(frozen=True, kw_only=True)
class ParamsM(Objective):
    """Trainable parameters, in millions."""

    unit: ClassVar[str] = "10^6"
    column: ClassVar[str] = "params_m"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the counted parameters in millions, shape `(n,)`."""
        return facts.costs(genotypes)["params_m"].to_numpy(float)
