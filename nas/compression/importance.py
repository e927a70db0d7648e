"""The importance of the channels of a trained network, computed from its weights alone.

The importance of a channel is the mean square of its values times the sum of the squared weights
that read it: an estimate of what it adds to the following layers. Wanda (Sun et al., ICLR 2024)
scores single weights in this way. The mean square is computed without images: from the scale and
the shift of batch normalisation (Liu et al., Network Slimming, ICCV 2017), or, where there is none,
from the weights and the bias that compute the channel. Where a rectifier reads the normalised
channel, its variance stands in place of the mean square, as a compressed network's statistics are
estimated anew and its biases corrected, which restores the mean: what is lost is the variance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from nas.compression.base import Base
from nas.compression.channels import NORMALISATIONS, Channels, Part
from nas.compression.tracing import Traced

RECTIFIERS = ("ReLU", "ReLU6", "relu", "relu6")


def importance(base: Base, channels: Channels) -> Mapping[int, torch.Tensor]:
    """Return the importance of every channel, `(size,)`, by the number of its group.

    Groups whose channels must all stay are left out.
    """
    groups = channels.removable()
    values, weights, made = (
        {number: torch.zeros(group.size) for number, group in groups.items()} for _ in range(3)
    )

    def add(total: dict[int, torch.Tensor], parts: Sequence[Part], added: torch.Tensor) -> None:
        for part in parts:
            number, size = channels.number(part), channels.group(part).size * part.repeat
            if number in groups:
                total[number] += added[:size].view(-1, part.repeat).sum(1)
            added = added[size:]

    rectified = _rectified(base.layers)
    for layer in base.layers:
        state = base.state(layer.path) if layer.name in channels.read else {}
        if "weight" not in state:
            continue
        weight = state["weight"].square()
        if layer.target in NORMALISATIONS:
            squares = weight + state["bias"].square()
            if layer.name in rectified:
                squares = rectified_variance(state["bias"], state["weight"].abs())
            add(values, channels.read[layer.name], squares)
            continue
        squares = weight.flatten(1).sum(1) + (state["bias"].square() if "bias" in state else 0)
        add(made, channels.written[layer.name], squares)
        if layer.arguments.get("groups", 1) == 1:
            read = weight.transpose(0, 1).flatten(1).sum(1)
            add(weights, channels.read[layer.name], read)
    return {
        number: weights[number] * (values[number] if values[number].any() else made[number])
        for number in groups
    }


def rectified_variance(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Return the variance of max(x, 0) for normal x, by element."""
    mean, deviation = mean.double(), deviation.double().clamp(min=1e-12)
    ratio = mean / deviation
    positive: torch.Tensor = torch.special.ndtr(ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    first = mean * positive + deviation * density
    second = (mean.square() + deviation.square()) * positive + mean * deviation * density
    variance: torch.Tensor = (second - first.square()).clamp(min=0).float()
    return variance


def _rectified(layers: Sequence[Traced]) -> set[str]:
    """Return the layers whose outputs, or sums of these, rectifiers read and nothing else."""
    readers, found = defaultdict[str, list[Traced]](list), set[str]()
    for layer in reversed(layers):
        if reading := readers[layer.name]:
            summed = (reader.kind == "add" and reader.name in found for reader in reading)
            direct = (reader.kind in RECTIFIERS for reader in reading)
            if all(a or b for a, b in zip(direct, summed, strict=True)):
                found.add(layer.name)
        for name in layer.inputs:
            readers[name].append(layer)
    return found
