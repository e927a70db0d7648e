"""Convolutional layers that several spaces build their blocks from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class SqueezeExcite(nn.Module):
    """Channel attention from globally pooled features (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale every channel of `(N, channels, H, W)`."""
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = F.relu(self.reduce(scale))
        return x * F.hardsigmoid(self.expand(scale))


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a padded convolution without bias and its batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Resize(nn.Module):
    """Bilinear interpolation to another size."""

    def __init__(self, input_shape: Sequence[int], size: Sequence[int]) -> None:
        del input_shape
        super().__init__()
        self.resize = nn.Upsample(tuple(size), mode="bilinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, C, *size)`."""
        resized: torch.Tensor = self.resize(x)
        return resized


class ConvNormAct(nn.Sequential):
    """Convolution, batch normalisation, activation."""

    def __init__(
        self, input_shape: Sequence[int], outputs: int, kernel: int, stride: int = 1
    ) -> None:
        super().__init__(*conv_bn(input_shape[0], outputs, kernel, stride), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, optionally attend, project; add the input where shapes allow."""

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        kernel: int,
        stride: int,
        expansion: int,
        squeeze_excite: bool,
    ) -> None:
        super().__init__()
        inputs = input_shape[0]
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_bn(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6(inplace=True)]
        if squeeze_excite:
            layers.append(SqueezeExcite(hidden, divisible_by_8(hidden / 4)))
        layers += conv_bn(hidden, outputs, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, inputs, H, W)` to `(N, outputs, H / stride, W / stride)`."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class Classifier(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_shape[0], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to logits `(N, num_classes)`."""
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def divisible_by_8(channels: float) -> int:
    """Round to a multiple of 8, never down by more than 10 % (MobileNetV2)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
