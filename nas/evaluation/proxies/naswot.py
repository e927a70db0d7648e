"""NASWOT (Mellor et al., "Neural Architecture Search without Training", ICML 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.layers import positive
from nas.network.module import Network


@register("naswot")
@dataclass(frozen=True, kw_only=True)
class Naswot(Proxy):
    """`log |det K|` of the kernel that counts in how many activations two images agree.

    `K[i, j]` is the number of activations whose inputs have the same sign for images `i` and `j`.
    Where two images agree in all of them, the score is minus infinity.
    """

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        n = len(batch.images)
        kernel = batch.images.new_zeros(n, n, dtype=torch.float64)
        for signs in positive(network, batch.images):
            codes = 2.0 * signs.float() - 1.0
            # +1 where two agree, -1 where they do not.
            kernel += (codes @ codes.T + codes.shape[1]).double() / 2
        return {"naswot": float(torch.linalg.slogdet(kernel).logabsdet)}
