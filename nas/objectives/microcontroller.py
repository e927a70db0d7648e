"""Memory, flash and time of a device that a tool estimates; see `nas.devices.microcontrollers`.

What is predicted in a search is what the tool would say; at the end it says it, of the network that
is handed over, and neither is called measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.measurement import KILOBYTE
from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register
from nas.objectives.builtin import LatencyMs


@dataclass(frozen=True, kw_only=True)
class LatencyMsEstimated(LatencyMs):
    """Latency of one inference as a tool estimates it.

    Where the study's device is estimated this takes the place of `latency_ms`.
    """

    measured_column: ClassVar[str] = "latency_ms_estimated"


@register("sram_kb")
@dataclass(frozen=True, kw_only=True)
class SramKb(Objective):
    """Memory that a network takes of a microcontroller, in 1024 bytes, as calibrated."""

    unit: ClassVar[str] = "KiB"
    column: ClassVar[str] = "sram_kb_predicted"
    needs_estimates: ClassVar[bool] = True

    @property
    def verified_column(self) -> str:
        """The one that the tool estimates; see `Objective.verified_column`."""
        return "sram_kb_estimated"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the predicted kilobytes, shape `(n,)`."""
        if facts.sram is None:
            raise TypeError("sram_kb needs a calibrated predictor of memory")
        return facts.sram.predict_mb(genotypes) * 1e6 / KILOBYTE


@register("flash_kb")
@dataclass(frozen=True, kw_only=True)
class FlashKb(Objective):
    """Flash that a network and its code take of a microcontroller, in 1024 bytes, as calibrated."""

    unit: ClassVar[str] = "KiB"
    column: ClassVar[str] = "flash_kb_predicted"
    needs_estimates: ClassVar[bool] = True

    @property
    def verified_column(self) -> str:
        """The one that the tool estimates; see `Objective.verified_column`."""
        return "flash_kb_estimated"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the predicted kilobytes, shape `(n,)`."""
        if facts.flash is None:
            raise TypeError("flash_kb needs a calibrated predictor of flash")
        return facts.flash.predict_mb(genotypes) * 1e6 / KILOBYTE
