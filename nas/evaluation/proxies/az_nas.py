"""AZ-NAS (Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for NAS", CVPR 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn import functional as F

from nas.core.errors import CandidateFailure
from nas.evaluation.proxies import Batch, Proxy, register
from nas.evaluation.proxies.costs import macs
from nas.network.blocks import INPUT
from nas.network.module import Network


@register("az_nas")
@dataclass(frozen=True, kw_only=True)
class AzNas(Proxy):
    """Four scores, whose ranks among many networks are combined; see `proxies.combined`.

    They are of the features that every path of the network passes through, which are the outputs
    of cells or residual blocks:

    - expressivity: the sum of the entropies of the features' normalised principal components;
    - progressivity: the least growth of that entropy from one feature to the next;
    - trainability: the mean of `2 - s - 1 / s`, where `s` is the largest singular value of the
      Jacobian matrix between neighbouring features, estimated from random signs at the later one;
    - complexity: multiply-accumulates.

    The authors score cells of a fixed number; here a cell that is a skip connection is no cell.
    Features of three axes are read as `(n, tokens, channels)`.
    """

    def scores(self, network: Network, batch: Batch) -> Mapping[str, float]:
        features = list(_bottlenecks(network, batch.images))
        if len(features) < 2:
            raise CandidateFailure("crashed", "AZ-NAS compares blocks in a row: there are not two")
        entropies = [_entropy(feature.detach()) for feature in features]
        gains = [later - earlier for earlier, later in pairwise(entropies)]
        return {
            "expressivity": sum(entropies),
            "progressivity": min(gains),
            "trainability": _trainability(features),
            "complexity": macs(network),
        }


def _bottlenecks(network: Network, images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield, in order, each tensor `(n, C, H, W)` or `(n, T, C)` that all later blocks depend on.

    What the last block returns is not among them.
    """
    blocks = list(enumerate(network.placed_blocks))
    last_reader = {source: position for position, block in blocks for source in block.inputs}
    values = {INPUT: images}
    for position, block in blocks[:-1]:
        module = network.get_submodule(block.name)
        values[block.name] = module(*(values[source] for source in block.inputs))
        values = {name: x for name, x in values.items() if last_reader.get(name, 0) > position}
        if list(values) == [block.name] and values[block.name].ndim in (3, 4):
            yield values[block.name]


def _rows(feature: torch.Tensor) -> torch.Tensor:
    """Return a feature as one row of channels a position."""
    if feature.ndim == 4:
        feature = feature.movedim(1, -1)
    return feature.flatten(0, -2)


def _entropy(feature: torch.Tensor) -> float:
    rows = _rows(feature)
    rows = rows - rows.mean(0)
    variances = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0)
    total = variances.sum()
    if total == 0:
        return 0.0
    shares = variances / total
    return float(-(shares * torch.log(shares + 1e-8)).sum())


def _trainability(features: Sequence[torch.Tensor]) -> float:
    scores = []
    # From the last one, since the graph of a pair is freed once it has been gone through.
    for earlier, later in reversed(list(pairwise(features))):
        signs = torch.randint(0, 2, later.shape, device=later.device).to(later) * 2 - 1
        gradient = None
        if later.requires_grad and earlier.requires_grad:
            [gradient] = torch.autograd.grad(later, earlier, signs, allow_unused=True)
        if gradient is None:  # a node that nothing enters
            gradient = torch.zeros_like(earlier)
        scores.append(_of_pair(gradient, signs))
    return sum(known) / len(known) if (known := [s for s in scores if s is not None]) else 0.0


def _of_pair(gradient: torch.Tensor, signs: torch.Tensor) -> float | None:
    """Return the score of neighbouring features; `None` where their positions do not match."""
    if gradient.ndim == signs.ndim == 4 and gradient.shape[2:] != signs.shape[2:]:
        height, width = signs.shape[2:]
        stride = math.ceil(gradient.shape[2] / height)
        right, below = stride * width - gradient.shape[3], stride * height - gradient.shape[2]
        if min(right, below) < 0:
            return None
        # Odd sizes are rounded up.
        gradient = F.pixel_unshuffle(F.pad(gradient, (0, right, 0, below)), stride)
    if gradient.shape == signs.shape and torch.equal(gradient, signs):
        return -math.inf  # an identity
    inputs, outputs = _rows(gradient), _rows(signs)
    if len(inputs) != len(outputs):
        return None
    largest = float(torch.linalg.matrix_norm(inputs.T @ outputs / len(outputs), ord=2))
    return 2.0 - largest - 1.0 / (largest + 1e-6)
