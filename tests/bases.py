"""Small networks to compress, named by the images that they take: `net_C_H_W_CLASSES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

REQUIRED: dict[str, Callable[..., dict[str, Any]]] = {
    "compressed": lambda shape, classes: {
        "base": f"bases:net_{'_'.join(map(str, shape))}_{classes}"
    }
}
"""Settings without a default, by the name of the space that has them."""


def required(space: str, input_shape: tuple[int, int, int], num_classes: int) -> dict[str, Any]:
    """Return what a space needs beside the images and the classes."""
    return REQUIRED.get(space, lambda *_: {})(input_shape, num_classes)


class Residual(nn.Module):
    """Two convolutions beside a shortcut, with a convolution where it is `projected`."""

    def __init__(self, inputs: int, outputs: int, stride: int, projected: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if projected else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.second(self.act(self.norm1(self.first(x)))))
        y += self.shortcut(x)
        return self.act(y)


class Net(nn.Module):
    """A small residual network."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU6())
        self.blocks = nn.Sequential(Residual(16, 16, 1), Residual(16, 32, 2))
        self.hidden, self.linear = nn.Linear(32, 64), nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).mean((2, 3))
        return self.linear(nn.functional.gelu(self.hidden(x)))


def __getattr__(name: str) -> Callable[[], nn.Module]:
    kind, *numbers = name.split("_")
    if kind != "net":
        raise AttributeError(name)
    channels, _, _, classes = map(int, numbers)

    def made() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Net(channels, classes)

    return made
