"""Parameters and multiply-accumulates: what a proxy has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.evaluation.proxies import Batch, Proxy, register
from nas.network.module import Network
from nas.network.plan import trace_block


@register("params")
@dataclass(frozen=True, kw_only=True)
class Params(Proxy):
    """Trainable parameters, as the space counts them."""

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        del batch
        return {"params": float(sum(trace_block(b).params for b in network.placed_blocks))}


@register("macs")
@dataclass(frozen=True, kw_only=True)
class Macs(Proxy):
    """Multiply-accumulate operations of one inference, as the space counts them."""

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        del batch
        return {"macs": macs(network)}


def macs(network: Network) -> float:
    """Return the multiply-accumulate operations of one inference."""
    return float(sum(trace_block(block).macs for block in network.placed_blocks))
