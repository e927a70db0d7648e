"""Layers of the sample space: the second file of its network."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.space import Genotype

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,  # Nair and Hinton
    "hardswish": F.hardswish,
}
"""Functions by name."""

UNUSED = 7


def unused(x: Tensor) -> Tensor:
    return x * UNUSED


def normalised(channels: int, momentum: float = 0.2) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=momentum)


class Described:
    """A plain base class."""

    genotype: Genotype = ()

    def describe(self, genotype: Genotype | None = None) -> str:
        return f"{type(self).__name__} {genotype}"


class Block(nn.Module, Described):
    """Convolution, normalisation, activation: ä ö ü in a docstring keep their columns."""

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = normalised(outputs)  # a comment that survives
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.norm(self.conv(x)))


class Pooled(nn.Module):
    """A network that no space declares, with the arguments that it was built with."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.arguments = {"channels": channels, "outputs": outputs}
        self.linear = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Mixed(Pooled):
    """A network whose output of one image depends on the others beside it."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return self.linear(means - means.mean(0, keepdim=True))
