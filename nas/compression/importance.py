"""The importance of the channels of a trained network, computed from its weights alone.

The importance of a channel is the mean square of its values times the sum of the squared weights
that read it: an estimate of what it adds to the following layers. Wanda (Sun et al., ICLR 2024)
scores single weights in this way. The mean square is computed without images: from the scale and
the shift of batch normalisation (Liu et al., Network Slimming, ICCV 2017), or, where there is none,
from the weights and the bias that compute the channel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nas.compression.base import Base
from nas.compression.channels import NORMALISATIONS, Channels


def importance(base: Base, channels: Channels) -> Mapping[int, torch.Tensor]:
    """Return the importance of every channel, `(size,)`, by the number of its group.

    Groups whose channels must all stay are left out.
    """
    groups = channels.removable()
    values, weights, made = (
        {number: torch.zeros(group.size) for number, group in groups.items()} for _ in range(3)
    )
    for layer in base.layers:
        state = base.state(layer.path) if layer.name in channels.read else {}
        if "weight" not in state:
            continue
        if layer.has_weights and (own := channels.number(channels.written[layer.name][0])) in made:
            made[own] += state["weight"].flatten(1).square().sum(1)
            made[own] += state["bias"].square() if "bias" in state else 0
        if layer.target in NORMALISATIONS:
            added, total = state["weight"].square() + state["bias"].square(), values
        elif layer.arguments.get("groups", 1) == 1:
            added, total = state["weight"].transpose(0, 1).flatten(1).square().sum(1), weights
        else:
            continue
        for part in channels.read[layer.name]:
            number, size = channels.number(part), channels.group(part).size * part.repeat
            if number in groups:
                total[number] += added[:size].view(-1, part.repeat).sum(1)
            added = added[size:]
    return {
        number: weights[number] * (values[number] if values[number].any() else made[number])
        for number in groups
    }
