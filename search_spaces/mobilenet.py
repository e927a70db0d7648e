"""The MobileNet space: stages of inverted residuals.

The block is the inverted residual of MobileNetV2 (Sandler et al., CVPR 2018) with the optional
squeeze-and-excitation of MobileNetV3 (Howard et al., ICCV 2019); what is searched (depth of each
stage, kernel and expansion of each block, width, resolution) follows Once-for-All (Cai et al.,
ICLR 2020). The defaults suit images of 28 to 32 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import nn

from nas.core.errors import ConfigError
from nas.core.space import Gene
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces import register
from search_spaces.layers.convolution import (
    Classifier,
    ConvNormAct,
    InvertedResidual,
    Resize,
    divisible_by_8,
)


def initialise(module: nn.Module) -> None:
    """Initialise one layer as MobileNetV2 and V3 do."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


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

    def blocks(self) -> Iterator[Block]:
        """Resizing, stem, the stages' inverted residuals, 1x1 convolution, classifier."""
        yield Block("resize", self._resize)
        yield Block("stem", lambda chosen: self._conv(chosen, 0, 3, self.stem_stride))
        for stage in range(1, len(self.stage_channels) + 1):
            for block in range(1, self.max_depth + 1):
                yield Block(f"stage{stage}_block{block}", partial(self._residual, stage, block))
        yield Block("head", lambda chosen: self._conv(chosen, -1, 1, 1))
        yield Block(
            "classifier", lambda _: ModuleSpec(Classifier, {"num_classes": self.num_classes})
        )

    def _resize(self, chosen: Choices) -> ModuleSpec | None:
        sides = self.input_shape[1:]
        size = [round(side * chosen["resolution"] / min(sides)) for side in sides]
        return ModuleSpec(Resize, {"size": size}) if size != list(sides) else None

    def _conv(self, chosen: Choices, place: int, kernel: int, stride: int) -> ModuleSpec:
        outputs = self._channels(chosen["width"])[place]
        return ModuleSpec(ConvNormAct, {"outputs": outputs, "kernel": kernel, "stride": stride})

    def _residual(self, stage: int, block: int, chosen: Choices) -> ModuleSpec | None:
        if chosen[f"stage{stage}.depth"] < block:
            return None
        gene = f"stage{stage}.block{block}"
        return ModuleSpec(
            InvertedResidual,
            {
                "outputs": self._channels(chosen["width"])[stage],
                "kernel": chosen[f"{gene}.kernel"],
                "stride": self.stage_strides[stage - 1] if block == 1 else 1,
                "expansion": chosen[f"{gene}.expansion"],
                "squeeze_excite": chosen[f"{gene}.squeeze_excite"],
            },
        )

    def initialise(self, network: nn.Module) -> None:
        """Initialise as MobileNetV2 and V3 do."""
        network.apply(initialise)
