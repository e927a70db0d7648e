"""The MobileNet space: stages of inverted residuals.

The block is the inverted residual of MobileNetV2 (Sandler et al., CVPR 2018) with the optional
squeeze-and-excitation of MobileNetV3 (Howard et al., ICCV 2019); what is searched (depth of each
stage, kernel and expansion of each block, width, resolution) follows Once-for-All (Cai et al.,
ICLR 2020). The defaults suit images of 28 to 32 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.core.errors import ConfigError
from nas.core.space import Gene, Genotype
from nas.network.space import SearchSpace
from search_spaces import register


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


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, optionally attend, project; add the input where shapes allow."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        expansion: int,
        squeeze_excite: bool,
    ) -> None:
        super().__init__()
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


class MobileNet(nn.Module):
    """Stem convolution, inverted residuals, 1x1 convolution, pooling, classifier."""

    def __init__(
        self,
        input_shape: Sequence[int],
        image_size: Sequence[int],
        stem_channels: int,
        stem_stride: int,
        blocks: Sequence[dict[str, Any]],
        head_channels: int,
        num_classes: int,
    ) -> None:
        """Build the network.

        Args:
            input_shape: `(channels, height, width)` of an image.
            image_size: `(height, width)` to which images are resized first.
            stem_channels: Output channels of the stem.
            stem_stride: Stride of the stem.
            blocks: Arguments of every `InvertedResidual` but its input channels.
            head_channels: Channels before the classifier.
            num_classes: Number of logits.
        """
        super().__init__()
        resized = list(image_size) != list(input_shape[1:])
        self.resize = nn.Upsample(tuple(image_size), mode="bilinear") if resized else nn.Identity()
        self.stem = nn.Sequential(
            *conv_bn(input_shape[0], stem_channels, 3, stem_stride), nn.ReLU6(inplace=True)
        )
        channels = stem_channels
        stages = []
        for block in blocks:
            stages.append(InvertedResidual(channels, **block))
            channels = block["outputs"]
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Sequential(*conv_bn(channels, head_channels, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Linear(head_channels, num_classes)
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, C, H, W)` to logits `(N, num_classes)`."""
        x = self.head(self.blocks(self.stem(self.resize(x))))
        logits: torch.Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def initialise(module: nn.Module) -> None:
    """Initialise one layer as MobileNetV2 and V3 do."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def divisible_by_8(channels: float) -> int:
    """Round to a multiple of 8, never down by more than 10 % (MobileNetV2)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


@register("mobilenet")
@dataclass(frozen=True, kw_only=True)
class MobileNetSpace(SearchSpace):
    """Depth, kernel, expansion and squeeze-excite per block; width and resolution per network.

    Attributes:
        resolutions: Shorter side in pixels to which the network resizes its input; empty for
            the input's own and three quarters of it.
        widths: Multipliers of all channels.
        kernels: Kernel sizes of the depthwise convolution.
        expansions: Expansion ratios of the inverted residual.
        squeeze_excite: Whether a block may attend to channels.
        stem_channels: Output channels of the stem at width 1.
        stem_stride: Stride of the stem.
        stage_channels: Output channels of every stage at width 1.
        stage_strides: Stride of the first block of every stage.
        max_depth: Most blocks of a stage; the least is 1.
        head_channels: Channels before the classifier at width 1.
    """

    resolutions: tuple[int, ...] = ()
    widths: tuple[float, ...] = (0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 4, 6)
    squeeze_excite: tuple[bool, ...] = (False, True)
    stem_channels: int = 16
    stem_stride: int = 2
    stage_channels: tuple[int, ...] = (16, 24, 40, 80)
    stage_strides: tuple[int, ...] = (1, 2, 2, 1)
    max_depth: int = 3
    head_channels: int = 160

    def __post_init__(self) -> None:
        """Normalise and check the settings."""
        super().__post_init__()
        side = min(self.input_shape[1:])
        resolutions = self.resolutions or (max(side * 3 // 4, 1), side)
        object.__setattr__(self, "resolutions", tuple(sorted(set(resolutions))))
        for name in ("resolutions", "widths", "kernels", "expansions", "squeeze_excite"):
            choices = tuple(getattr(self, name))
            object.__setattr__(self, name, choices)
            positive = name == "squeeze_excite" or all(choice > 0 for choice in choices)
            if not choices or len(set(choices)) < len(choices) or not positive:
                expected = "distinct positive choices"
                raise ConfigError(f"search_space.{name}", list(choices), expected)
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError("search_space.kernels", list(self.kernels), "odd kernel sizes")
        self._check_stages()
        channels = [self._channels(width) for width in self.widths]
        if len(set(channels)) < len(channels):
            expected = f"widths that give different numbers of channels, not {channels}"
            raise ConfigError("search_space.widths", list(self.widths), expected)

    def _check_stages(self) -> None:
        for name in ("stage_channels", "stage_strides"):
            sizes = tuple(getattr(self, name))
            object.__setattr__(self, name, sizes)
            if not sizes or min(sizes) < 1:
                raise ConfigError(f"search_space.{name}", list(sizes), "a positive size per stage")
        if len(self.stage_channels) != len(self.stage_strides):
            expected = f"{len(self.stage_channels)} strides, one for each of stage_channels"
            raise ConfigError("search_space.stage_strides", list(self.stage_strides), expected)
        for name in ("max_depth", "stem_channels", "stem_stride", "head_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search_space.{name}", getattr(self, name), "1 or more")

    def _channels(self, width: float) -> tuple[int, ...]:
        """Return the channels of the stem, of every stage and of the head at a width."""
        sizes = (self.stem_channels, *self.stage_channels, self.head_channels)
        return tuple(divisible_by_8(size * width) for size in sizes)

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Width and resolution, then for each stage its depth and the choices of its blocks."""
        genes = [Gene("width", self.widths), Gene("resolution", self.resolutions)]
        for stage in range(1, len(self.stage_channels) + 1):
            genes.append(Gene(f"stage{stage}.depth", tuple(range(1, self.max_depth + 1))))
            for block in range(1, self.max_depth + 1):
                prefix = f"stage{stage}.block{block}"
                genes += [
                    Gene(f"{prefix}.kernel", self.kernels),
                    Gene(f"{prefix}.expansion", self.expansions),
                    Gene(f"{prefix}.squeeze_excite", self.squeeze_excite),
                ]
        return tuple(genes)

    def canonical(self, genotype: Sequence[int]) -> Genotype:
        """Fold the genes of blocks beyond the depth of their stage."""
        folded = list(self.check(genotype))
        stage_genes = 1 + 3 * self.max_depth
        for start in range(2, len(folded), stage_genes):
            active = 1 + 3 * (folded[start] + 1)
            folded[start + active : start + stage_genes] = [0] * (stage_genes - active)
        return tuple(folded)

    def network(self, genotype: Genotype) -> tuple[type[nn.Module], dict[str, Any]]:
        """Return `MobileNet` and its arguments."""
        chosen = self.decode(genotype)
        stem_channels, *stage_channels, head_channels = self._channels(chosen["width"])
        blocks = []
        stages = zip(stage_channels, self.stage_strides, strict=True)
        for stage, (channels, stride) in enumerate(stages, 1):
            for block in range(1, chosen[f"stage{stage}.depth"] + 1):
                prefix = f"stage{stage}.block{block}"
                blocks.append(
                    {
                        "outputs": channels,
                        "kernel": chosen[f"{prefix}.kernel"],
                        "stride": stride if block == 1 else 1,
                        "expansion": chosen[f"{prefix}.expansion"],
                        "squeeze_excite": chosen[f"{prefix}.squeeze_excite"],
                    }
                )
        sides = self.input_shape[1:]
        return MobileNet, {
            "input_shape": list(self.input_shape),
            "image_size": [round(side * chosen["resolution"] / min(sides)) for side in sides],
            "stem_channels": stem_channels,
            "stem_stride": self.stem_stride,
            "blocks": blocks,
            "head_channels": head_channels,
            "num_classes": self.num_classes,
        }
