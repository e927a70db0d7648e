"""SNIP (Lee et al., ICLR 2019), as a proxy (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.layers import gradients
from nas.network.module import Network


@register("snip")
@dataclass(frozen=True, kw_only=True)
class Snip(Proxy):
    """`sum |w dL/dw|` over the weights of convolutions and linear layers.

    This is how much the loss changes, to first order, where single weights are removed.
    """

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        terms = (float((w * g).abs().sum()) for w, g in gradients(network, batch))
        return {"snip": sum(terms)}
