"""ZiCo (Li et al., "ZiCo: Zero-shot NAS via inverse coefficient of variation", ICLR 2023)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nas.core.errors import ConfigError
from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.layers import gradients
from nas.network.module import Network


@register("zico")
@dataclass(frozen=True, kw_only=True)
class ZiCo(Proxy):
    """`sum over layers of log(sum over weights of E|g| / std g)`.

    `g` is the gradient of the loss on one part of the batch; mean and deviation are over the parts.
    The deviation is that of `g` and not of `|g|`, as in the authors' code. Layers are convolutions
    and linear ones; weights whose gradients do not differ are left out.

    Attributes:
        parts: Into which the batch is split, with a gradient each.
    """

    parts: int = 2

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise ConfigError("evaluation.proxy.parts", self.parts, "2 or more")

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        found: dict[int, list[torch.Tensor]] = defaultdict(list)
        for part in batch.split(self.parts):
            for position, (_, gradient) in enumerate(gradients(network, part)):
                found[position].append(gradient)
        score = 0.0
        for layer in found.values():
            several = torch.stack(layer)
            std = several.std(0, correction=0)
            ratios = (several.abs().mean(0) / std)[std > 0]
            if ratios.numel():
                score += math.log(float(ratios.sum()))
        return {"zico": score}
