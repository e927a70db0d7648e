"""The norm of the gradient (Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.layers import gradients
from nas.network.module import Network


@register("grad_norm")
@dataclass(frozen=True, kw_only=True)
class GradNorm(Proxy):
    """Sum over convolutions and linear layers of the Euclidean norm of the weight's gradient."""

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        return {"grad_norm": sum(float(g.norm()) for _, g in gradients(network, batch))}
