"""The importance of the channels of a trained network, computed from its weights alone.

The importance of a channel is the mean square of its values times the sum of the squared weights
that read it: an estimate of what it adds to the following layers. Wanda (Sun et al., ICLR 2024)
scores single weights in this way. The mean square is computed without images: from the scale and
the shift of batch normalisation (Liu et al., Network Slimming, ICCV 2017), or, where there is none,
from the weights and the bias that compute the channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from nas.compression.base import Base
from nas.compression.channels import NORMALISATIONS, Channels, Part


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

    for layer in base.layers:
        state = base.state(layer.path) if layer.name in channels.read else {}
        if "weight" not in state:
            continue
        weight = state["weight"].square()
        if layer.target in NORMALISATIONS:
            add(values, channels.read[layer.name], weight + state["bias"].square())
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
