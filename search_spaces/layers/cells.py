"""Operations that cells are made of, as in DARTS and NAS-Bench-201: ReLU, convolution, norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from nas.network.module import SizedLayer


class ReLUConvNorm(nn.Sequential):
    """ReLU, convolution without bias, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


class DilatedConv(nn.Sequential):
    """ReLU, depthwise convolution, 1x1 convolution, batch normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 2) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )


class SeparableConv(nn.Sequential):
    """Two depthwise separable convolutions, the first of them with the stride."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            DilatedConv(channels, kernel, stride, dilation=1),
            DilatedConv(channels, kernel, stride=1, dilation=1),
        )


class FactorizedReduction(SizedLayer):
    """Halves the resolution by two 1x1 convolutions of stride 2, one a pixel further."""

    def __init__(self, input_shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        inputs, height, width = input_shape
        # Odd sizes are rounded up, as a padded convolution rounds them.
        self.padding = _to_even(height, width)
        self.act = nn.ReLU()
        self.first = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, H / 2, W / 2)`."""
        x = self.act(x)
        padding = _to_even(*x.shape[2:]) if self.any_size else self.padding
        if any(padding):
            x = F.pad(x, padding)
        halves = [self.first(x), self.second(x[:, :, 1:, 1:])]
        reduced: torch.Tensor = self.norm(torch.cat(halves, 1))
        return reduced


def _to_even(height: int, width: int) -> tuple[int, int, int, int]:
    return 0, width % 2, 0, height % 2


class Zeros(nn.Module):
    """A node that nothing enters."""

    def __init__(self, input_shape: Sequence[int], stride: int = 1) -> None:
        del input_shape
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return zeros `(N, C, H / stride, W / stride)`."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Node(nn.Module):
    """The sum of operations, one on each of a node's inputs.

    Attributes:
        branches: By the path of an edge, the position of its input and its operation; see
            `nas.network.inheritance`.
    """

    def __init__(
        self, *input_shapes: Sequence[int], operations: Sequence[str], strides: Sequence[int] = ()
    ) -> None:
        """Build the operations.

        Args:
            input_shapes: Of every input.
            operations: One name an input; see `operation`.
            strides: One an input; 1 by default.
        """
        super().__init__()
        edges = zip(operations, input_shapes, strides or [1] * len(operations), strict=True)
        self.edges = nn.ModuleList(operation(*edge) for edge in edges)
        self.branches = {f"edges.{i}": (i, name) for i, name in enumerate(operations)}

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Map tensors `(N, C, H, W)` to their sum after the operations."""
        terms = [edge(x) for edge, x in zip(self.edges, inputs, strict=True)]
        total: torch.Tensor = reduce(torch.add, terms)
        return total


def operation(name: str, input_shape: Sequence[int], stride: int) -> nn.Module:
    """Return the operation that DARTS or NAS-Bench-201 calls `name`; it keeps the channels."""
    channels = input_shape[0]
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(input_shape, channels)
    kind, _, size = name.rpartition("_")
    kernel = int(size.partition("x")[0])
    if kind == "avg_pool":
        return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
    if kind == "max_pool":
        return nn.MaxPool2d(kernel, stride, kernel // 2)
    if kind == "sep_conv":
        return SeparableConv(channels, kernel, stride)
    if kind == "dil_conv":
        return DilatedConv(channels, kernel, stride)
    return ReLUConvNorm(channels, channels, kernel, stride)


def gain(name: str, channels: int) -> float:
    """Return by how much the operation `name` enlarges the root mean square of what it is given.

    Inputs are independent, and so are weights, of unit variance: a convolution multiplies by the
    root of its fan-in, averaging divides by the root of the number of its terms. ReLU and
    normalisation count as nothing.
    """
    total = 1.0
    for layer in operation(name, (channels, 1, 1), 1).modules():
        if isinstance(layer, nn.Conv2d):
            total *= math.sqrt(layer.weight[0].numel())
        elif isinstance(layer, nn.AvgPool2d):
            total /= math.sqrt(math.prod(_pair(layer.kernel_size)))
    return total
