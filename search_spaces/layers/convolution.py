"""Convolutional layers that several spaces build their blocks from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from nas.network.module import Dropout, DropPath, SizedLayer

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": nn.SiLU,
}
"""Activations by the names that papers give them."""


class SqueezeExcite(nn.Module):
    """Channel attention from globally pooled features (Hu et al., CVPR 2018).

    With ReLU and a hard sigmoid as in MobileNetV3, or with swish and a sigmoid as in EfficientNet.
    """

    def __init__(self, channels: int, squeezed: int, swish: bool = False) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.swish = swish

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale every channel of `(N, channels, H, W)`."""
        scale = F.adaptive_avg_pool2d(x, 1)
        if self.swish:
            return x * torch.sigmoid(self.expand(F.silu(self.reduce(scale))))
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(scale))))


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a padded convolution without bias and its batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Resize(SizedLayer):
    """Bilinear interpolation to another size; by the same ratio where `any_size` is."""

    def __init__(self, input_shape: Sequence[int], size: Sequence[int]) -> None:
        super().__init__()
        self.input_size = tuple(input_shape[1:])
        self.size = tuple(size)
        self.resize = nn.Upsample(self.size, mode="bilinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, C, *size)`."""
        if self.any_size and x.shape[2:] != self.input_size:
            sides = zip(x.shape[2:], self.size, self.input_size, strict=True)
            size = [max(round(side * to / own), 1) for side, to, own in sides]
            return F.interpolate(x, size, mode="bilinear")
        resized: torch.Tensor = self.resize(x)
        return resized


class ConvNormAct(nn.Sequential):
    """Convolution, batch normalisation, activation."""

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        kernel: int,
        stride: int = 1,
        activation: str = "relu6",
    ) -> None:
        layers = conv_bn(input_shape[0], outputs, kernel, stride)
        super().__init__(*layers, ACTIVATIONS[activation]())


class Branch(nn.Module):
    """Layers one after another, whose input is added to their output where `residual` is."""

    def __init__(self, layers: Sequence[nn.Module], *, residual: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual
        if residual:
            self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, inputs, H, W)` to `(N, outputs, H / stride, W / stride)`."""
        y: torch.Tensor = self.layers(x)
        return x + self.drop_path(y) if self.residual else y


class InvertedResidual(Branch):
    """Expand, filter depthwise, optionally attend, project; add the input where shapes allow.

    From MobileNetV2 (Sandler et al., CVPR 2018); with attention and the order of layers of
    MobileNetV3 (Howard et al., ICCV 2019). With swish it is the block of EfficientNet (Tan and Le,
    ICML 2019). With a depthwise convolution before the expansion, or without the one behind it, it
    is the universal inverted bottleneck of MobileNetV4 (Qin et al., ECCV 2024, section 3).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        hidden: int,
        kernel: int,
        stride: int,
        squeeze_excite: bool,
        activation: str,
        start_kernel: int = 0,
    ) -> None:
        """Build the block.

        Args:
            input_shape: `(C, H, W)`.
            outputs: Channels of the output.
            hidden: Channels of the depthwise convolution; as many as the input has: no expansion.
            kernel: Size of the depthwise convolution; 0 for none.
            stride: Of the last depthwise convolution.
            squeeze_excite: Whether to attend to channels, through a quarter of the hidden ones; in
                EfficientNet's block, through a quarter of the input's.
            activation: Name in `ACTIVATIONS`.
            start_kernel: Size of the depthwise convolution before the expansion; 0 for none.
        """
        inputs = input_shape[0]
        layers: list[nn.Module] = []
        if start_kernel:
            layers += conv_bn(inputs, inputs, start_kernel, 1 if kernel else stride, groups=inputs)
        if hidden != inputs or start_kernel or not kernel:
            layers += [*conv_bn(inputs, hidden, 1), ACTIVATIONS[activation]()]
        if kernel:
            layers += conv_bn(hidden, hidden, kernel, stride, groups=hidden)
            layers.append(ACTIVATIONS[activation]())
        if squeeze_excite:
            layers.append(_squeeze_excite(inputs, hidden, activation))
        layers += conv_bn(hidden, outputs, 1)
        super().__init__(layers, residual=stride == 1 and inputs == outputs)


class FusedInvertedResidual(Branch):
    """Fused-MBConv: one convolution expands and filters; add the input where shapes allow.

    From EfficientNetV2 (Tan and Le, ICML 2021, figure 2), as in google/automl,
    efficientnetv2/effnetv2_model.py: without expansion the block is one convolution.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        hidden: int,
        kernel: int,
        stride: int,
        squeeze_excite: bool,
        activation: str,
    ) -> None:
        """Build the block.

        Args:
            input_shape: `(C, H, W)`.
            outputs: Channels of the output.
            hidden: Channels that the convolution expands to; as many as the input has: none.
            kernel: Size of the convolution.
            stride: Of the convolution.
            squeeze_excite: Whether to attend to the hidden channels, as in `InvertedResidual`.
            activation: Name in `ACTIVATIONS`.
        """
        inputs = input_shape[0]
        expands = hidden != inputs
        layers: list[nn.Module] = []
        if expands:
            layers += [*conv_bn(inputs, hidden, kernel, stride), ACTIVATIONS[activation]()]
        if squeeze_excite:
            layers.append(_squeeze_excite(inputs, hidden, activation))
        if expands:
            layers += conv_bn(hidden, outputs, 1)
        else:
            layers += [*conv_bn(inputs, outputs, kernel, stride), ACTIVATIONS[activation]()]
        super().__init__(layers, residual=stride == 1 and inputs == outputs)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, which is projected where shapes differ.

    The block of ResNet-18 and -34 (He et al., CVPR 2016, figure 5 left, option B).
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, kernel: int, stride: int, activation: str
    ) -> None:
        """Build the block.

        Args:
            input_shape: `(C, H, W)`.
            outputs: Channels of both convolutions.
            kernel: Size of both convolutions.
            stride: Of the first convolution.
            activation: Name in `ACTIVATIONS`.
        """
        super().__init__()
        inputs = input_shape[0]
        self.layers = nn.Sequential(
            *conv_bn(inputs, outputs, kernel, stride),
            ACTIVATIONS[activation](),
            *conv_bn(outputs, outputs, kernel),
        )
        self.drop_path = DropPath()
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*conv_bn(inputs, outputs, 1, stride))
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, inputs, H, W)` to `(N, outputs, H / stride, W / stride)`."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y: torch.Tensor = self.act(shortcut + self.drop_path(self.layers(x)))
        return y


def _squeeze_excite(inputs: int, hidden: int, activation: str) -> SqueezeExcite:
    swish = activation == "swish"
    return SqueezeExcite(
        hidden, max(inputs // 4, 1) if swish else divisible_by_8(hidden / 4), swish
    )


class Classifier(nn.Module):
    """Global average pooling, a hidden layer where there is one, and a linear layer."""

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, hidden: int = 0, bias: bool = True
    ) -> None:
        """Build the classifier.

        Args:
            input_shape: `(C, H, W)`.
            num_classes: Number of logits.
            hidden: Units of a layer with h-swish before the last one (MobileNetV3); 0 for none.
            bias: Whether the hidden layer has one.
        """
        super().__init__()
        inputs = input_shape[0]
        self.hidden = nn.Identity() if not hidden else nn.Linear(inputs, hidden, bias)
        self.act = nn.Identity() if not hidden else nn.Hardswish()
        self.dropout = Dropout()
        self.linear = nn.Linear(hidden or inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to logits `(N, num_classes)`."""
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: torch.Tensor = self.linear(self.dropout(self.act(self.hidden(pooled))))
        return logits


class ConvClassifier(nn.Module):
    """Global average pooling, a 1x1 convolution with normalisation, a linear layer.

    The end of MobileNetV4 (Qin et al., ECCV 2024).
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, hidden: int, activation: str
    ) -> None:
        """Build the classifier.

        Args:
            input_shape: `(C, H, W)`.
            num_classes: Number of logits.
            hidden: Channels of the convolution.
            activation: Name in `ACTIVATIONS`.
        """
        super().__init__()
        self.hidden = ConvNormAct(input_shape, hidden, 1, activation=activation)
        self.dropout = Dropout()
        self.linear = nn.Linear(hidden, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to logits `(N, num_classes)`."""
        features = self.hidden(F.adaptive_avg_pool2d(x, 1)).flatten(1)
        logits: torch.Tensor = self.linear(self.dropout(features))
        return logits


def initialise_convolutional(module: nn.Module) -> None:
    """Initialise one layer as MobileNetV2 and V3 do."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def divisible_by_8(channels: float) -> int:
    """Round to a multiple of 8, never down by more than 10 % (MobileNetV2)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
