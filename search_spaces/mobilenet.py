"""The MobileNet space: stages of inverted residuals, from MobileNetV2 to Once-for-All.

What is searched (depth of each stage, kernel and expansion of each block, width, resolution)
follows Once-for-All (Cai et al., ICLR 2020); attention and activation of each block follow
MobileNetV3 (Howard et al., ICCV 2019). A layout says what is not searched: stem, head, and the
channels and strides of the stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from nas.core.errors import ConfigError, UnknownNameError
from nas.core.space import Gene, Genotype, Preset
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces import register
from search_spaces.layers.convolution import (
    ACTIVATIONS,
    Classifier,
    ConvNormAct,
    InvertedResidual,
    Resize,
    divisible_by_8,
    initialise_convolutional,
)
from search_spaces.layers.layouts import (
    DEFAULT_LARGE,
    DEFAULT_SMALL,
    LARGE,
    LAYOUTS,
    PUBLISHED,
    Layout,
    Rows,
    Stage,
)

CHOICES = ("resolutions", "widths", "kernels", "expansions", "squeeze_excite", "activations")


@register("mobilenet")
@dataclass(frozen=True, kw_only=True)
class MobileNetSpace(SearchSpace):
    """Depths, kernels, expansions, attention and activations; width and resolution.

    What is empty or zero is as the layout has it.

    Attributes:
        layout: Name in `LAYOUTS`; empty for one that fits the images' size.
        resolutions: Shorter side in pixels to which the network resizes its input.
        widths: Multipliers of all channels.
        kernels: Kernel sizes of the depthwise convolution.
        expansions: Hidden channels of a block, as a multiple of its input's.
        squeeze_excite: Whether a block may attend to channels.
        activations: Of a block: `relu`, `relu6`, `hswish`, `swish`.
        stem_channels: Output channels of the stem at width 1.
        stem_stride: Stride of the stem.
        stage_channels: Output channels of every stage at width 1, in place of the layout's stages.
        stage_strides: Stride of the first block of each of `stage_channels`.
        max_depth: Most blocks of a stage.
        head_channels: Channels of the last convolution at width 1.
    """

    layout: str = ""
    resolutions: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()
    kernels: tuple[int, ...] = ()
    expansions: tuple[float, ...] = ()
    squeeze_excite: tuple[bool, ...] = ()
    activations: tuple[str, ...] = ()
    stem_channels: int = 0
    stem_stride: int = 0
    stage_channels: tuple[int, ...] = ()
    stage_strides: tuple[int, ...] = ()
    max_depth: int = 0
    head_channels: int = 0

    def __post_init__(self) -> None:
        """Check the settings and fill in the layout's."""
        super().__post_init__()
        side = min(self.input_shape[1:])
        object.__setattr__(
            self, "layout", self.layout or (DEFAULT_LARGE if side >= LARGE else DEFAULT_SMALL)
        )
        if self.layout not in LAYOUTS:
            raise UnknownNameError("search_space.layout", self.layout, LAYOUTS)
        layout = LAYOUTS[self.layout]
        for name in CHOICES:
            choices = tuple(getattr(self, name)) or getattr(layout, name)
            if name == "resolutions":
                choices = tuple(sorted(set(choices or (max(side * 3 // 4, 1), side))))
            object.__setattr__(self, name, choices)
            positive = name in ("squeeze_excite", "activations") or all(c > 0 for c in choices)
            if len(set(choices)) < len(choices) or not positive:
                raise ConfigError(
                    f"search_space.{name}", list(choices), "distinct positive choices"
                )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError("search_space.kernels", list(self.kernels), "odd kernel sizes")
        if not set(ACTIVATIONS).issuperset(self.activations):
            expected = f"some of {', '.join(ACTIVATIONS)}"
            raise ConfigError("search_space.activations", list(self.activations), expected)
        self._check_sizes()
        channels = [self._channels(width) for width in self.widths]
        if len(set(channels)) < len(channels):
            expected = f"widths that give different numbers of channels, not {channels}"
            raise ConfigError("search_space.widths", list(self.widths), expected)

    def _check_sizes(self) -> None:
        for name in ("stage_channels", "stage_strides"):
            sizes = tuple(getattr(self, name))
            object.__setattr__(self, name, sizes)
            if sizes and min(sizes) < 1:
                raise ConfigError(f"search_space.{name}", list(sizes), "a positive size per stage")
        if len(self.stage_channels) != len(self.stage_strides):
            expected = f"{len(self.stage_channels)} strides, one for each of stage_channels"
            raise ConfigError("search_space.stage_strides", list(self.stage_strides), expected)
        for name in ("max_depth", "stem_channels", "stem_stride", "head_channels"):
            if getattr(self, name) < 0:
                expected = "1 or more, or 0 for the layout's"
                raise ConfigError(f"search_space.{name}", getattr(self, name), expected)

    @property
    def _layout(self) -> Layout:
        """The layout, with what the settings change in it."""
        layout = LAYOUTS[self.layout]
        stages = layout.stages
        if self.stage_channels:
            rows = zip(self.stage_channels, self.stage_strides, strict=True)
            deepest = max(stage.max_depth for stage in stages)
            stages = tuple(Stage(channels, stride, deepest) for channels, stride in rows)
        if self.max_depth:
            stages = tuple(
                stage if stage.fixed else replace(stage, max_depth=self.max_depth)
                for stage in stages
            )
        return replace(
            layout,
            stages=stages,
            stem_channels=self.stem_channels or layout.stem_channels,
            stem_stride=self.stem_stride or layout.stem_stride,
            head_channels=self.head_channels or layout.head_channels,
        )

    def _channels(self, width: float) -> tuple[int, ...]:
        """Return the channels of the stem, of every stage and of the head at a width."""
        layout = self._layout
        stages = (stage.channels for stage in layout.stages)
        sizes = (layout.stem_channels, *stages, layout.head_channels)
        return tuple(divisible_by_8(size * width) for size in sizes)

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Width and resolution, then for each stage its depth and the choices of its blocks."""
        layout = self._layout
        genes = [Gene("width", self.widths), Gene("resolution", self.resolutions)]
        for number, stage in enumerate(layout.stages, 1):
            if stage.fixed:
                continue
            fewest = min(layout.min_depth, stage.max_depth)
            genes.append(Gene(f"stage{number}.depth", tuple(range(fewest, stage.max_depth + 1))))
            for block in range(1, stage.max_depth + 1):
                prefix = f"stage{number}.block{block}"
                genes.append(Gene(f"{prefix}.kernel", self.kernels))
                genes.append(Gene(f"{prefix}.expansion", self.expansions))
                if self.squeeze_excite:
                    genes.append(Gene(f"{prefix}.squeeze_excite", self.squeeze_excite))
                if self.activations:
                    genes.append(Gene(f"{prefix}.activation", self.activations, ordinal=False))
        return tuple(genes)

    def blocks(self) -> Iterator[Block]:
        """Resizing, stem, the stages' inverted residuals, 1x1 convolution, classifier."""
        layout = self._layout
        yield Block("resize", self._resize)
        yield Block("stem", partial(self._conv, 0, 3, layout.stem_stride))
        for number, stage in enumerate(layout.stages, 1):
            for block in range(1, stage.max_depth + 1):
                choose = partial(self._residual, number, stage, block)
                yield Block(f"stage{number}_block{block}", choose)
        yield Block("head", partial(self._conv, -1, 1, 1))
        yield Block("classifier", self._classifier)

    def _resize(self, chosen: Choices) -> ModuleSpec | None:
        sides = self.input_shape[1:]
        size = [round(side * chosen["resolution"] / min(sides)) for side in sides]
        return ModuleSpec(Resize, {"size": size}) if size != list(sides) else None

    def _conv(self, place: int, kernel: int, stride: int, chosen: Choices) -> ModuleSpec:
        return ModuleSpec(
            ConvNormAct,
            {
                "outputs": self._channels(chosen["width"])[place],
                "kernel": kernel,
                "stride": stride,
                "activation": self._layout.outer_activation,
            },
        )

    def _residual(
        self, number: int, stage: Stage, block: int, chosen: Choices
    ) -> ModuleSpec | None:
        if not stage.fixed and chosen[f"stage{number}.depth"] < block:
            return None
        channels = self._channels(chosen["width"])
        inputs = channels[number if block > 1 else number - 1]
        gene = f"stage{number}.block{block}"
        kernel, expansion = 3, 1.0
        squeeze_excite, activation = stage.squeeze_excite, stage.activation
        if not stage.fixed:
            kernel, expansion = chosen[f"{gene}.kernel"], chosen[f"{gene}.expansion"]
            if self.squeeze_excite:
                squeeze_excite = chosen[f"{gene}.squeeze_excite"]
            if self.activations:
                activation = chosen[f"{gene}.activation"]
        return ModuleSpec(
            InvertedResidual,
            {
                "outputs": channels[number],
                "hidden": inputs if expansion == 1 else divisible_by_8(inputs * expansion),
                "kernel": kernel,
                "stride": stage.stride if block == 1 else 1,
                "squeeze_excite": squeeze_excite,
                "activation": activation,
            },
        )

    def _classifier(self, chosen: Choices) -> ModuleSpec:
        layout = self._layout
        arguments = {"num_classes": self.num_classes}
        if layout.hidden:
            hidden = divisible_by_8(layout.hidden * chosen["width"])
            arguments |= {"hidden": hidden, "bias": layout.hidden_bias}
        return ModuleSpec(Classifier, arguments)

    def initialise(self, network: nn.Module) -> None:
        """Initialise as MobileNetV2 and V3 do."""
        network.apply(initialise_convolutional)

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """Every layout, at its images' size; Once-for-All at each of its resolutions."""
        presets = []
        for name, layout in LAYOUTS.items():
            small = name == DEFAULT_SMALL
            settings = {
                "input_shape": [3, 32, 32] if small else [3, 224, 224],
                "num_classes": 10 if small else 1000,
                "layout": name,
            }
            size = "> 10^19" if name == "ofa" else ""
            presets.append(Preset(name, settings, size, layout.source))
        return tuple(presets)

    def references(self) -> dict[str, Genotype]:
        """The published networks of the layout, at width 1 and the images' own resolution."""
        found = {}
        changed = (self.stage_channels, self.stem_channels, self.stem_stride, self.head_channels)
        for name, (layout, stages) in PUBLISHED.items():
            if layout == self.layout and not any(changed):
                chosen = self._choices(stages)
                named = [(gene, chosen.get(gene.name, gene.choices[0])) for gene in self.genes]
                if all(value in gene.choices for gene, value in named):
                    genotype = [gene.choices.index(value) for gene, value in named]
                    found[name] = self.canonical(genotype)
        return found

    def _choices(self, stages: Sequence[Rows]) -> dict[str, int | float | bool | str]:
        chosen: dict[str, int | float | bool | str] = {}
        chosen |= {"width": 1.0, "resolution": min(self.input_shape[1:])}
        for number, rows in enumerate(stages, 2):
            chosen[f"stage{number}.depth"] = len(rows)
            for block, row in enumerate(rows, 1):
                kernel, expansion, squeeze_excite, activation = row
                prefix = f"stage{number}.block{block}"
                chosen[f"{prefix}.kernel"] = kernel
                chosen[f"{prefix}.expansion"] = expansion
                chosen[f"{prefix}.squeeze_excite"] = squeeze_excite
                chosen[f"{prefix}.activation"] = activation
        return chosen
