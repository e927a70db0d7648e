"""The MobileNet space: stages of convolutional blocks, from MobileNetV2 to MobileNetV4.

What is searched (depth of each stage, kernel and expansion of each block, width, resolution)
follows Once-for-All (Cai et al., ICLR 2020); attention and activation of each block follow
MobileNetV3 (Howard et al., ICCV 2019), and whether its convolutions are depthwise EfficientNetV2
(Tan and Le, ICML 2021) and MobileNetV4 (Qin et al., ECCV 2024). A layout says what is not
searched: stem, head, and the channels and strides of the stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from nas.core.errors import ConfigError, UnknownNameError
from nas.core.space import Gene, Genotype, Preset
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.mixed_precision import MixedPrecisionSpace
from search_spaces import register
from search_spaces.layers.convolution import (
    ACTIVATIONS,
    BasicBlock,
    Classifier,
    ConvClassifier,
    ConvNormAct,
    FusedInvertedResidual,
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
    Row,
    Stage,
)

KINDS: dict[str, type[nn.Module]] = {
    "mbconv": InvertedResidual,
    "fused": FusedInvertedResidual,
    "residual": BasicBlock,
    "extra_dw": InvertedResidual,
    "convnext": InvertedResidual,
    "ffn": InvertedResidual,
}
"""What a block can be; the last three and `mbconv` are the universal inverted bottleneck."""

GENES = {
    "kind": "kinds",
    "kernel": "kernels",
    "start_kernel": "kernels",
    "expansion": "expansions",
    "squeeze_excite": "squeeze_excite",
    "activation": "activations",
}
"""Setting with the choices of each gene of a block."""

CHOICES = ("resolutions", "widths", *dict.fromkeys(GENES.values()))
NAMED = {"kinds": KINDS, "activations": ACTIVATIONS}
"""Settings with a closed list of choices."""


@register("mobilenet")
@dataclass(frozen=True, kw_only=True)
class MobileNetSpace(MixedPrecisionSpace):
    """Depths; kinds, kernels, expansions, attention and activations; width and resolution.

    What is empty or zero is as the layout has it.

    Attributes:
        layout: Name in `LAYOUTS`; empty for one that fits the images' size.
        resolutions: Shorter side in pixels to which the network resizes its input.
        widths: Multipliers of all channels.
        kinds: What a block may be: `mbconv`, an inverted residual; `fused`, one whose expansion
            is the convolution (EfficientNetV2); `residual`, two convolutions (ResNet); and
            MobileNetV4's `extra_dw`, a depthwise convolution before and one behind the expansion;
            `convnext`, before it only; `ffn`, none, which is no choice where the stride is 2.
        kernels: Kernel sizes of a block's convolutions that are larger than 1x1.
        expansions: Hidden channels of a block, as a multiple of its input's; `residual` has none.
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
    kinds: tuple[str, ...] = ()
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
            named = name == "squeeze_excite" or name in NAMED
            positive = named or all(choice > 0 for choice in choices)
            if len(set(choices)) < len(choices) or not positive:
                raise ConfigError(
                    f"search_space.{name}", list(choices), "distinct positive choices"
                )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError("search_space.kernels", list(self.kernels), "odd kernel sizes")
        for name, known in NAMED.items():
            if not set(known).issuperset(getattr(self, name)):
                expected = f"some of {', '.join(known)}"
                raise ConfigError(f"search_space.{name}", list(getattr(self, name)), expected)
        if self.kinds == ("ffn",):
            expected = "another kind beside ffn, which cannot reduce the resolution"
            raise ConfigError("search_space.kinds", list(self.kinds), expected)
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
            genes += self.precision_genes(f"stage{number}")
            for block in range(1, stage.max_depth + 1):
                for name, choices in self._block_choices(stage, block).items():
                    ordinal = GENES[name] not in NAMED
                    genes.append(Gene(f"stage{number}.block{block}.{name}", choices, ordinal))
        return tuple(genes)

    def _block_choices(self, stage: Stage, block: int) -> dict[str, tuple[Any, ...]]:
        """Return the choices of every gene of a block by the gene's last name."""
        choices = {name: tuple(getattr(self, setting)) for name, setting in GENES.items()}
        if stage.stride > 1 and block == 1:
            choices["kind"] = tuple(kind for kind in self.kinds if kind != "ffn")
        if "extra_dw" not in self.kinds:
            del choices["start_kernel"]
        return {name: values for name, values in choices.items() if values}

    def blocks(self) -> Iterator[Block]:
        """Resizing, stem, the stages' blocks, 1x1 convolution, classifier."""
        layout = self._layout
        yield Block("resize", self._resize)
        yield Block("stem", partial(self._conv, 0, 3, layout.stem_stride))
        for number, stage in enumerate(layout.stages, 1):
            for block in range(1, stage.max_depth + 1):
                choose = partial(self._block, number, stage, block)
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

    def _block(self, number: int, stage: Stage, block: int, chosen: Choices) -> ModuleSpec | None:
        if not stage.fixed and chosen[f"stage{number}.depth"] < block:
            return None
        channels = self._channels(chosen["width"])
        inputs = channels[number if block > 1 else number - 1]

        def choice(name: str) -> Any:
            searched = not stage.fixed and getattr(self, GENES[name])
            return (
                chosen[f"stage{number}.block{block}.{name}"] if searched else getattr(stage, name)
            )

        kind = choice("kind")
        kernel = 0 if kind == "ffn" else choice("kernel")
        arguments: dict[str, Any] = {"outputs": channels[number]}
        if kind not in ("conv", "residual"):
            expansion = 1 if stage.fixed else choice("expansion")
            arguments |= {
                "hidden": inputs if expansion == 1 else divisible_by_8(inputs * expansion),
                "squeeze_excite": choice("squeeze_excite"),
            }
        arguments |= {
            "kernel": 0 if kind == "convnext" else kernel,
            "stride": stage.stride if block == 1 else 1,
            "activation": choice("activation"),
        }
        if kind in ("extra_dw", "convnext"):
            arguments["start_kernel"] = choice("start_kernel") if kind == "extra_dw" else kernel
        if not stage.fixed:
            arguments |= self.in_precision(f"stage{number}", chosen)
        return ModuleSpec(ConvNormAct if kind == "conv" else KINDS[kind], arguments)

    def _classifier(self, chosen: Choices) -> ModuleSpec:
        layout = self._layout
        arguments: dict[str, Any] = {"num_classes": self.num_classes}
        if not layout.hidden:
            return ModuleSpec(Classifier, arguments)
        arguments["hidden"] = divisible_by_8(layout.hidden * chosen["width"])
        if layout.hidden_norm:
            arguments["activation"] = layout.outer_activation
            return ModuleSpec(ConvClassifier, arguments)
        return ModuleSpec(Classifier, {**arguments, "bias": layout.hidden_bias})

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

    def _choices(self, stages: Sequence[Sequence[Row]]) -> dict[str, Any]:
        chosen: dict[str, Any] = {"width": 1.0, "resolution": min(self.input_shape[1:])}
        searched = [i for i, stage in enumerate(self._layout.stages, 1) if not stage.fixed]
        for number, rows in zip(searched, stages, strict=True):
            chosen[f"stage{number}.depth"] = len(rows)
            for block, row in enumerate(rows, 1):
                for name, value in row._asdict().items():
                    if value is not None:
                        chosen[f"stage{number}.block{block}.{name}"] = value
        return chosen
