"""SWAP (Peng et al., "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS", ICLR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.layers import positive
from nas.network.module import Network


@register("swap")
@dataclass(frozen=True, kw_only=True)
class Swap(Proxy):
    """Number of different sample-wise activation patterns.

    The pattern of one activation is where its input is positive among the images of the batch. The
    paper's regularisation by model size is left to objectives and limits.
    """

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        packed = [np.packbits(s.cpu().numpy(), axis=0) for s in positive(network, batch.images)]
        patterns = np.ascontiguousarray(np.concatenate(packed, axis=1).T)
        as_bytes = patterns.view(np.dtype((np.void, patterns.shape[1])))
        return {"swap": float(len(np.unique(as_bytes)))}
