"""The vision transformer space: ViT and DeiT, AutoFormer, and stems that suit small devices.

What is searched follows AutoFormer (Chen et al., ICCV 2021): depth, width of the tokens, and of
each block its heads and the ratio of its perceptron; heads are 64 wide whatever the tokens are.
Beside patches as in ViT (Dosovitskiy et al., ICLR 2021) the first stages may be convolutions (Xiao
et al., NeurIPS 2021) or inverted residuals, because plain transformers lose on small devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import nn

from nas.core.errors import ConfigError
from nas.core.space import Gene, Genotype, Preset
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.mixed_precision import MixedPrecisionSpace
from search_spaces import register
from search_spaces.layers.attention import (
    Attention,
    ConvStem,
    FeedForward,
    InvertedResidualStem,
    PatchEmbedding,
    TokenClassifier,
    Tokens,
    initialise_transformer,
)
from search_spaces.layers.convolution import Resize

STEMS: Mapping[str, type[nn.Module]] = {
    "patch": PatchEmbedding,
    "conv": ConvStem,
    "inverted_residual": InvertedResidualStem,
}
POOLINGS = ("token", "mean", "mean_beside_token")
KNOWN: Mapping[str, tuple[Any, ...]] = {
    "stems": tuple(STEMS),
    "poolings": POOLINGS,
    "relative_position": (False, True),
}
"""Settings with a closed list of choices."""

MAX_DISTANCE = 14
"""Beyond it AutoFormer tells relative positions no longer apart."""

LARGE = 96
"""From so many pixels on the choices are those of the papers."""

LARGE_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "resolutions": (),
    "patches": (16, 32),
    "stems": tuple(STEMS),
    "widths": (192, 216, 240, 320, 384, 448, 528, 576, 624),
    "depths": (12, 13, 14, 15, 16),
    "heads": (3, 4, 5, 6, 7, 8, 9, 10),
    "mlp_ratios": (3.0, 3.5, 4.0),
    "poolings": POOLINGS,
    "relative_position": (False, True),
}
SMALL_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "resolutions": (),
    "patches": (),
    "stems": tuple(STEMS),
    "widths": (48, 64, 96, 128),
    "depths": (2, 3, 4, 6),
    "heads": (1, 2, 3, 4),
    "mlp_ratios": (1.0, 2.0, 4.0),
    "poolings": ("token", "mean"),
    "relative_position": (False, True),
}


@register("vit")
@dataclass(frozen=True, kw_only=True)
class ViTSpace(MixedPrecisionSpace):
    """Depth, width, heads and perceptrons; stem, patches, resolution, pooling, positions.

    What is empty or zero is as the images' size has it.

    Attributes:
        resolutions: Shorter side in pixels to which the network resizes its input; by default
            the images' own.
        patches: Pixels of a patch's side; powers of 2.
        stems: What makes tokens of pixels: `patch`, `conv`, `inverted_residual`.
        widths: Features of a token.
        depths: Numbers of blocks.
        heads: Attention heads of a block.
        mlp_ratios: Hidden features of a block's perceptron, as a multiple of the width.
        poolings: What the classifier sees: `token`, the class token; `mean` of the patches;
            `mean_beside_token`, of the patches behind a class token (AutoFormer).
        relative_position: Whether attention has relative positions beside the tokens' own.
        head_width: Features of a head.
    """

    family: ClassVar[str] = "transformer"

    resolutions: tuple[int, ...] = ()
    patches: tuple[int, ...] = ()
    stems: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    mlp_ratios: tuple[float, ...] = ()
    poolings: tuple[str, ...] = ()
    relative_position: tuple[bool, ...] = ()
    head_width: int = 0

    def __post_init__(self) -> None:
        """Check the settings and fill in those that depend on the images."""
        super().__post_init__()
        side = min(self.input_shape[1:])
        large = side >= LARGE
        patch = 2 ** max(int(math.log2(side / 8)), 0) if side >= 8 else 1
        derived = {"resolutions": (side,), "patches": (patch, 2 * patch)}
        for name, default in (LARGE_CHOICES if large else SMALL_CHOICES).items():
            choices = tuple(getattr(self, name)) or default or derived[name]
            object.__setattr__(self, name, choices)
            known = KNOWN.get(name)
            fits = set(known).issuperset(choices) if known else min(choices) > 0
            if len(set(choices)) < len(choices) or not fits:
                listed = f", of {', '.join(map(str, known))}" if known else " and above 0"
                expected = "distinct choices" + listed
                raise ConfigError(f"search_space.{name}", list(choices), expected)
        if any(patch & (patch - 1) for patch in self.patches):
            raise ConfigError("search_space.patches", list(self.patches), "powers of 2")
        head_width = self.head_width or (64 if large else 32)
        object.__setattr__(self, "head_width", head_width)
        if head_width < 1:
            raise ConfigError("search_space.head_width", head_width, "1 or more")

    @property
    def genes(self) -> tuple[Gene, ...]:
        """What concerns the whole network, then heads and perceptron of every block."""
        genes = [
            Gene("resolution", self.resolutions),
            Gene("patch", self.patches),
            Gene("stem", self.stems, ordinal=False),
            Gene("width", self.widths),
            Gene("pooling", self.poolings, ordinal=False),
            Gene("relative_position", self.relative_position),
            Gene("depth", self.depths),
        ]
        for block in range(1, max(self.depths) + 1):
            genes.append(Gene(f"block{block}.heads", self.heads))
            genes.append(Gene(f"block{block}.mlp_ratio", self.mlp_ratios))
            genes += self.precision_genes(f"block{block}")
        return tuple(genes)

    def blocks(self) -> Iterator[Block]:
        """Resizing, stem, tokens, attention and perceptron of each block, classifier."""
        yield Block("resize", self._resize)
        yield Block("stem", self._stem)
        yield Block("tokens", self._tokens)
        for block in range(1, max(self.depths) + 1):
            yield Block(f"block{block}_attention", partial(self._attention, block))
            yield Block(f"block{block}_feed_forward", partial(self._feed_forward, block))
        yield Block("classifier", self._classifier)

    def _size(self, chosen: Choices) -> list[int]:
        sides = self.input_shape[1:]
        return [round(side * chosen["resolution"] / min(sides)) for side in sides]

    def _resize(self, chosen: Choices) -> ModuleSpec | None:
        size = self._size(chosen)
        same = size == list(self.input_shape[1:])
        return None if same else ModuleSpec(Resize, {"size": size})

    def _stem(self, chosen: Choices) -> ModuleSpec:
        module = STEMS[chosen["stem"]]
        return ModuleSpec(module, {"outputs": chosen["width"], "patch": chosen["patch"]})

    def _tokens(self, chosen: Choices) -> ModuleSpec:
        return ModuleSpec(Tokens, {"class_token": chosen["pooling"] != "mean"})

    def _attention(self, block: int, chosen: Choices) -> ModuleSpec | None:
        if chosen["depth"] < block:
            return None
        arguments = {
            "heads": chosen[f"block{block}.heads"],
            "head_width": self.head_width,
            **self.in_precision(f"block{block}", chosen),
        }
        if chosen["relative_position"]:
            arguments["relative_position"] = {
                "grid": [-(-side // chosen["patch"]) for side in self._size(chosen)],
                "class_token": chosen["pooling"] != "mean",
                "max_distance": MAX_DISTANCE,
            }
        return ModuleSpec(Attention, arguments)

    def _feed_forward(self, block: int, chosen: Choices) -> ModuleSpec | None:
        if chosen["depth"] < block:
            return None
        arguments = {"ratio": chosen[f"block{block}.mlp_ratio"]}
        return ModuleSpec(FeedForward, arguments | self.in_precision(f"block{block}", chosen))

    def _classifier(self, chosen: Choices) -> ModuleSpec:
        arguments = {"num_classes": self.num_classes, "pooling": chosen["pooling"]}
        return ModuleSpec(TokenClassifier, arguments)

    def initialise(self, network: nn.Module) -> None:
        """Initialise as DeiT does; convolutions keep PyTorch's own initial weights."""
        network.apply(initialise_transformer)

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """AutoFormer's three spaces, their union with more choices, and one for small images."""
        imagenet = {"input_shape": [3, 224, 224], "num_classes": 1000}
        autoformer = {
            **imagenet,
            "patches": [16],
            "stems": ["patch"],
            "poolings": ["mean_beside_token"],
            "relative_position": [True],
        }
        source = "AutoFormer, ICCV 2021, table 1: more than 1.7 x 10^16 in all three"
        sizes: dict[str, dict[str, list[float]]] = {
            "autoformer_tiny": {
                "widths": [192, 216, 240],
                "depths": [12, 13, 14],
                "heads": [3, 4],
                "mlp_ratios": [3.0, 3.5, 4.0],
            },
            "autoformer_small": {
                "widths": [320, 384, 448],
                "depths": [12, 13, 14],
                "heads": [5, 6, 7],
                "mlp_ratios": [3.0, 3.5, 4.0],
            },
            "autoformer_base": {
                "widths": [528, 576, 624],
                "depths": [14, 15, 16],
                "heads": [8, 9, 10],
                "mlp_ratios": [3.0, 3.5, 4.0],
            },
        }
        return (
            Preset("imagenet", imagenet),
            *(
                Preset(name, {**autoformer, **choices}, "> 1.7 x 10^16", source)
                for name, choices in sizes.items()
            ),
            Preset("small", {"input_shape": [3, 32, 32], "num_classes": 10}),
        )

    def references(self) -> dict[str, Genotype]:
        """DeiT and the networks that AutoFormer's authors published, for images of 224 pixels."""
        found = {}
        for name, chosen in PUBLISHED.items():
            named = [(gene, chosen.get(gene.name, gene.choices[0])) for gene in self.genes]
            fits = self.head_width == HEAD_WIDTH and chosen["depth"] <= max(self.depths)
            if fits and all(value in gene.choices for gene, value in named):
                genotype = [gene.choices.index(value) for gene, value in named]
                found[name] = self.canonical(genotype)
        return found


HEAD_WIDTH = 64


def _published(
    width: int, heads: Sequence[int], mlp_ratios: Sequence[float], *, autoformer: bool
) -> dict[str, Any]:
    """Return the choices of a published network by the names of genes."""
    chosen: dict[str, Any] = {
        "resolution": 224,
        "patch": 16,
        "stem": "patch",
        "width": width,
        "pooling": "mean_beside_token" if autoformer else "token",
        "relative_position": autoformer,
        "depth": len(heads),
    }
    for block, (count, ratio) in enumerate(zip(heads, mlp_ratios, strict=True), 1):
        chosen |= {f"block{block}.heads": count, f"block{block}.mlp_ratio": ratio}
    return chosen


PUBLISHED: dict[str, dict[str, Any]] = {
    "deit_tiny": _published(192, [3] * 12, [4.0] * 12, autoformer=False),
    "deit_small": _published(384, [6] * 12, [4.0] * 12, autoformer=False),
    "autoformer_tiny": _published(
        192,
        [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3],
        [3.5, 3.5, 3.0, 3.5, 3.0, 3.0, 4.0, 4.0, 3.5, 4.0, 3.5, 4.0, 3.5],
        autoformer=True,
    ),
    "autoformer_small": _published(
        384,
        [6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7],
        [3.0, 3.5, 3.0, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.5, 4.0],
        autoformer=True,
    ),
    "autoformer_base": _published(
        576,
        [9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10],
        [3.5, 3.5, 4.0, 3.5, 4.0, 3.5, 3.5, 3.0, 4.0, 4.0, 3.0, 4.0, 3.0, 3.5],
        autoformer=True,
    ),
}
"""DeiT (Touvron et al., ICML 2021, table 1); AutoFormer's subnets T, S and B as in microsoft/Cream
@ b799630, AutoFormer/experiments/subnet."""
