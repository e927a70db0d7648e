"""SynFlow (Tanaka et al., NeurIPS 2020), as a proxy (Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.layers import weights
from nas.network.module import Network

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@register("synflow")
@dataclass(frozen=True, kw_only=True)
class SynFlow(Proxy):
    """`log(1 + sum |w dR/dw|)`, where `R` is the sum of the outputs for an image of ones.

    All parameters have their absolute values and normalisations are left out, so that the outputs
    grow with the products of weights along all paths, by a factor a layer: float32 overflows.
    The sum is over the weights of convolutions and linear layers. No image is looked at.
    """

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, NORMALISATIONS):
                    setattr(module, name, nn.Identity())
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.abs_()
        own = weights(network)
        ones = torch.ones_like(batch.images[:1], dtype=torch.float64)
        found = torch.autograd.grad(network(ones).sum(), own, allow_unused=True)
        pairs = zip(own, found, strict=True)
        flow = sum(float((w.detach() * g).sum()) for w, g in pairs if g is not None)
        return {"synflow": math.log1p(flow)}
