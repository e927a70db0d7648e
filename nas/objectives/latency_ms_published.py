"""Objective `latency_ms_published`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("latency_ms_published")
@dataclass(frozen=True, kw_only=True)
class LatencyMsPublished(Objective):
    """Latency of one inference as a published table has it: exact, and others' work.

    Where a study's device is a table this takes the place of `latency_ms`.

    Attributes:
        device: Of the table; `None` for the study's own.
    """

    device: str | None = None

    unit: ClassVar[str] = "ms"
    column: ClassVar[str] = "latency_ms_published"
    needs_table: ClassVar[bool] = True

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the published milliseconds, shape `(n,)`."""
        if facts.published_ms is None:
            raise TypeError("latency_ms_published needs a table of published latencies")
        return facts.published_ms(genotypes, self.device)
