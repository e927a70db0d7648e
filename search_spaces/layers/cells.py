"""Operations that cells are made of, in the order of NAS-Bench-201 and DARTS: ReLU, conv, norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class ReLUConvNorm(nn.Sequential):
    """ReLU, convolution without bias, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


class Zeros(nn.Module):
    """Zeros of the input's shape: a node that nothing enters."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        del input_shape
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return zeros `(N, C, H, W)`."""
        return torch.zeros_like(x)
