"""A space of one's own with operations, which can be mixed, and sizes, which cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nas.core.space import Gene
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace


class Widened(nn.Conv2d):
    def __init__(self, shape: Sequence[int], channels: int) -> None:
        super().__init__(shape[0], channels, 1)


class Operation(nn.Module):
    """Each operation leaves the shape as it is."""

    def __init__(self, shape: Sequence[int], name: str) -> None:
        super().__init__()
        size = {"conv1": 1, "conv3": 3}.get(name)
        self.conv = nn.Conv2d(shape[0], shape[0], size, padding="same") if size else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).tanh()


class LinearHead(nn.Module):
    """Linear in what it reads."""

    def __init__(self, shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[0], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class TinySpace(SearchSpace):
    """A width, then an operation, then another one that may be missing, and a linear head."""

    input_shape: tuple[int, int, int] = (1, 8, 8)
    num_classes: int = 10

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (
            Gene("width", (2, 4, 16)),
            Gene("first", ("conv1", "conv3", "none"), ordinal=False),
            Gene("second", ("conv1", "conv3", "skip"), ordinal=False),
        )

    def blocks(self) -> Iterator[Block]:
        yield Block("widened", lambda c: ModuleSpec(Widened, {"channels": c["width"]}))
        yield Block("op1", lambda c: ModuleSpec(Operation, {"name": c["first"]}))
        yield Block("op2", self._second)
        yield Block("head", lambda _: ModuleSpec(LinearHead, {"num_classes": self.num_classes}))

    @staticmethod
    def _second(chosen: Choices) -> ModuleSpec | None:
        name = chosen["second"]
        return None if name == "skip" else ModuleSpec(Operation, {"name": name})
