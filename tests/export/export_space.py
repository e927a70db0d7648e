"""A sample space whose network needs everything that an export can carry over."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from export_layers import Block as ConvBlock
from export_layers import Described
from torch import nn

from nas.core.space import Gene, Genotype
from nas.network.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

STRIDE, DROPOUT = 2, 0.1
NOT_NEEDED = np.zeros(3)


# A comment above a decorated function.
@functools.cache
def divisible(channels: float, divisor: int = STRIDE) -> int:
    return max(divisor, int(channels) // divisor * divisor)


class SampleNetwork(nn.Module, Described):
    """Blocks, pooling, classifier."""

    class Head(nn.Module):
        """A class inside a class."""

        def __init__(self, channels: int, classes: int) -> None:
            super().__init__()
            self.drop = nn.Dropout(DROPOUT)
            self.linear = nn.Linear(channels, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.drop(x))

    def __init__(
        self, channels: Sequence[float], activation: str, inputs: int, classes: int
    ) -> None:
        super().__init__()
        sizes = [inputs, *(divisible(count) for count in channels)]
        self.blocks = nn.ModuleList(self._blocks(sizes, activation))
        self.head = self.Head(sizes[-1], classes)

    def _blocks(self, sizes: Sequence[int], activation: str) -> Iterator[ConvBlock]:
        for low, high in itertools.pairwise(sizes):
            yield ConvBlock(low, high, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        for block in self.blocks:
            x = F.avg_pool2d(block(x), STRIDE)
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class SampleSpace(SearchSpace):
    widths: tuple[float, ...] = (8.5, 12.0)

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (
            Gene("width", self.widths),
            Gene("activation", ("relu", "hardswish"), ordinal=False),
        )

    def network(self, genotype: Genotype) -> tuple[type[nn.Module], dict[str, Any]]:
        chosen = self.decode(genotype)
        return SampleNetwork, {
            "channels": [chosen["width"], 2 * chosen["width"]],
            "activation": chosen["activation"],
            "inputs": self.input_shape[0],
            "classes": self.num_classes,
        }
