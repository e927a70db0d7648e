"""Which channels of a trained network matter most, as its weights tell.

A channel counts as the mean square of its values times the squared weights that it is read by: what
it adds to the layers behind it. That is the score of Wanda (Sun et al., ICLR 2024) for whole
channels. Batch normalisation tells the values without images (Liu et al., Network Slimming, ICCV
2017); where there is none, the weights by which a channel is made do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nas.compression.base import Base
from nas.compression.channels import NORMALISATIONS, Channels


def importance(base: Base, channels: Channels) -> Mapping[int, torch.Tensor]:
    """Return how much every channel matters, `(size,)`, by the number of its group.

    Groups none of whose channels can be removed are left out.
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
