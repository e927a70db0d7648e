"""The optimizers of a training, from a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from nas.core.recipe import Recipe
from nas.network.shared import SharedWeights
from nas.training.muon import Muon, matrices_of

ParameterGroup = dict[str, Any]

BETA_1, BETA_2 = 0.9, 0.999
"""AdamW's own."""


def optimizers_of(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return new optimizers, which step every parameter of `network` together.

    It is one, but for `muon`, which has AdamW for what is no matrix. A group keeps the peak of its
    learning rate as `peak`.
    """
    settings = recipe.optimizer
    groups = parameter_groups(network, recipe)
    if settings.name == "sgd":
        nesterov = settings.momentum > 0
        # Fused, all parameters must get their first gradient in one step.
        fused = not isinstance(network, SharedWeights)
        return [torch.optim.SGD(groups, momentum=settings.momentum, nesterov=nesterov, fused=fused)]
    if settings.name == "adamw":
        return [torch.optim.AdamW(groups, betas=(settings.momentum, BETA_2), fused=True)]
    matrices = {id(weight) for weight in matrices_of(network)}
    parts = [
        [
            {**group, "params": chosen}
            for group in groups
            if (chosen := [p for p in group["params"] if (id(p) in matrices) is wanted])
        ]
        for wanted in (True, False)
    ]
    made: list[torch.optim.Optimizer] = []
    if parts[0]:
        made.append(Muon(parts[0], settings.momentum))
    if parts[1]:
        made.append(torch.optim.AdamW(parts[1], betas=(BETA_1, BETA_2), fused=True))
    return made


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[ParameterGroup]:
    """Return the parameters in groups of equal learning rate and weight decay.

    Weights of convolutions and linear layers decay, and nothing else does. A block, which is a
    child of the network, has its own learning rate where the recipe has a `layer_decay`.
    """
    settings = recipe.optimizer
    peak = settings.rate(recipe.batch_size)
    weights = {
        module.weight for module in network.modules() if isinstance(module, nn.Linear | _ConvNd)
    }
    blocks = list(network.children())
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for depth, block in enumerate(blocks, start=1):
        rate = peak * settings.layer_decay ** (len(blocks) - depth)
        for parameter in block.parameters():
            decay = settings.weight_decay if parameter in weights else 0.0
            group = {"params": [], "lr": rate, "peak": rate, "weight_decay": decay}
            groups.setdefault((rate, decay), group)["params"].append(parameter)
    return list(groups.values())
