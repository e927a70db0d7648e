"""Objective `error`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Objective
from nas.objectives import register


@register("error")
@dataclass(frozen=True, kw_only=True)
class Error(Objective):
    """Classification error on the validation split."""

    unit: ClassVar[str] = "%"
    column: ClassVar[str] = "error"

    def after_training(self, metrics: Mapping[str, float]) -> float:
        """Return the validation error in percent."""
        return metrics["error"]
