"""A sample space whose network needs everything that an export can carry over."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from export_layers import Block as ConvBlock
from export_layers import Described
from torch import nn

from nas.core.space import Gene
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

STRIDE, DROPOUT = 2, 0.1
NOT_NEEDED = np.zeros(3)


# A comment above a decorated function.
@functools.cache
def divisible(channels: float, divisor: int = STRIDE) -> int:
    return max(divisor, int(channels) // divisor * divisor)


class Features(nn.Module, Described):
    """Convolutions, each followed by pooling."""

    def __init__(
        self, input_shape: Sequence[int], channels: Sequence[float], activation: str
    ) -> None:
        super().__init__()
        sizes = [input_shape[0], *(divisible(count) for count in channels)]
        self.blocks = nn.ModuleList(self._blocks(sizes, activation))

    def _blocks(self, sizes: Sequence[int], activation: str) -> Iterator[ConvBlock]:
        for low, high in itertools.pairwise(sizes):
            yield ConvBlock(low, high, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        for block in self.blocks:
            x = F.avg_pool2d(block(x), STRIDE)
        return x


class Join(nn.Module):
    """Concatenates the means of two inputs and classifies them."""

    class Head(nn.Module):
        """A class inside a class."""

        def __init__(self, channels: int, classes: int) -> None:
            super().__init__()
            self.drop = nn.Dropout(DROPOUT)
            self.linear = nn.Linear(channels, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.drop(x))

    def __init__(self, features: Sequence[int], image: Sequence[int], classes: int) -> None:
        super().__init__()
        self.head = self.Head(features[0] + image[0], classes)

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([features.mean((2, 3)), image.mean((2, 3))], 1))


@dataclass(frozen=True, kw_only=True)
class SampleSpace(SearchSpace):
    widths: tuple[float, ...] = (8.5, 12.0)

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (
            Gene("width", self.widths),
            Gene("activation", ("relu", "hardswish"), ordinal=False),
        )

    def blocks(self) -> Iterator[Block]:
        yield Block("features", self._features)
        yield Block("never", lambda _: None)
        head = ModuleSpec(Join, {"classes": self.num_classes}, ("never", "input"))
        yield Block("join", lambda _: head)

    def _features(self, chosen: Choices) -> ModuleSpec:
        width = chosen["width"]
        arguments = {"channels": [width, 2 * width], "activation": chosen["activation"]}
        return ModuleSpec(Features, arguments)
