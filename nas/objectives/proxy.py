"""What a zero-cost proxy says of a network, as an objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Objective
from nas.objectives import register


@register("proxy_rank")
@dataclass(frozen=True, kw_only=True)
class ProxyRank(Objective):
    """Share of the space's random networks that the proxy scores higher, in percent.

    It is what a search with `evaluation=proxy` minimises. A trained network is judged by its error
    in place of it.
    """

    unit: ClassVar[str] = "%"
    column: ClassVar[str] = "proxy_rank"

    @property
    def verified_column(self) -> str:
        """The error after the final training; see `Objective.verified_column`."""
        return "error_final"

    def after_training(self, metrics: Mapping[str, float]) -> float:
        """Return the rank; the error, in percent, where the metrics are those of a training."""
        return metrics["proxy_rank" if "proxy_rank" in metrics else "error"]
