"""The MnasNet-like space of Accel-NASBench (Ahmad et al., 2024): seven stages of MBConv blocks.

Each stage has an expansion, a kernel size, a number of layers and squeeze-excite or not, all its
layers alike: 28 genes. Channels and strides are those of EfficientNet-B0 (Tan and Le, ICML 2019),
as is the block: swish, and squeeze-excite through a quarter of the block's input channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import nn

from nas import tables
from nas.core.space import Gene, Genotype, Preset
from nas.network.blocks import Block, Choices, IntArray, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces import register
from search_spaces.layers.convolution import (
    Classifier,
    ConvNormAct,
    InvertedResidual,
    initialise_convolutional,
)

CHANNELS, STRIDES = (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 2, 1, 2, 1)
STEM, HEAD = 32, 1280
MOST_LAYERS = (3, 3, 3, 3, 3, 4, 3)
EFFICIENTNET_B0 = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 3), (6, 5, 3), (6, 5, 4), (6, 3, 1))
"""Expansion, kernel size and layers of every stage."""

NEAR = 8
"""Of a sample of the space, a mutation returns one of so many nearest genotypes a gene."""

AT_ONCE = 1000
"""Genotypes that are compared with a sample at a time."""


@register("mnasnet")
@dataclass(frozen=True, kw_only=True)
class MnasNetSpace(SearchSpace):
    """Expansion, kernel size, layers and squeeze-excite of seven stages.

    Attributes:
        listed: A table that holds a sample of the space, to which a search is limited: any other
            genotype stands for that of the table which differs from it in the fewest genes (the
            first such row). Empty for the whole space.
    """

    listed: str = ""

    def __post_init__(self) -> None:
        """Check that there is such a table."""
        super().__post_init__()
        if self.listed:
            tables.component(self.listed)

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Four genes a stage, in the order of the published table."""
        return tuple(
            gene
            for stage, layers in enumerate(MOST_LAYERS, 1)
            for gene in (
                Gene(f"stage{stage}.expansion", (1, 4, 6)),
                Gene(f"stage{stage}.kernel", (3, 5)),
                Gene(f"stage{stage}.layers", tuple(range(1, layers + 1))),
                Gene(f"stage{stage}.squeeze_excite", (False, True)),
            )
        )

    def blocks(self) -> Iterator[Block]:
        """Stem, the stages' blocks, 1x1 convolution, classifier."""
        stem = {"outputs": STEM, "kernel": 3, "stride": 2, "activation": "swish"}
        yield Block("stem", lambda _: ModuleSpec(ConvNormAct, stem))
        for stage, layers in enumerate(MOST_LAYERS, 1):
            for layer in range(1, layers + 1):
                yield Block(f"stage{stage}_layer{layer}", partial(_mbconv, stage, layer))
        head = {"outputs": HEAD, "kernel": 1, "activation": "swish"}
        yield Block("head", lambda _: ModuleSpec(ConvNormAct, head))
        classifier = ModuleSpec(Classifier, {"num_classes": self.num_classes})
        yield Block("classifier", lambda _: classifier)

    def initialise(self, network: nn.Module) -> None:
        """Initialise as MobileNetV2 and V3 do."""
        network.apply(initialise_convolutional)

    def canonicalise(self, genotypes: IntArray) -> IntArray:
        """Return every genotype as it is; of a sample, the nearest that is listed."""
        if not self.listed:
            return super().canonicalise(genotypes)
        listed = tables.get(self.listed).genotypes
        ones = _ones(listed).T
        nearest = [
            (_ones(genotypes[i : i + AT_ONCE]) @ ones).argmax(axis=1)
            for i in range(0, len(genotypes), AT_ONCE)
        ]
        return np.asarray(listed[np.concatenate([np.zeros(0, np.int64), *nearest])])

    def mutate(self, genotype: Sequence[int], rng: np.random.Generator, genes: int = 1) -> Genotype:
        """Change active genes; of a sample, draw one of the nearest other genotypes."""
        if not self.listed:
            return super().mutate(genotype, rng, genes)
        listed = tables.get(self.listed).genotypes
        differing = (listed != np.array(self.canonical(genotype))).sum(axis=1)
        nearest = np.argsort(differing, kind="stable")[1 : 1 + NEAR * genes]
        return tuple(listed[rng.choice(nearest)].tolist())

    def every(self, most: int) -> IntArray | None:
        """Return all canonical genotypes: of a sample, those that are listed."""
        if not self.listed or self.size > most:
            return super().every(most)
        return np.unique(tables.get(self.listed).genotypes, axis=0)

    @property
    def size(self) -> int:
        """Number of canonical genotypes."""
        return len(tables.get(self.listed).genotypes) if self.listed else super().size

    def references(self) -> dict[str, Genotype]:
        """EfficientNet-B0, where the space is whole."""
        if self.listed:
            return {}
        chosen = [value for e, k, n in EFFICIENTNET_B0 for value in (e, k, n, True)]
        pairs = zip(self.genes, chosen, strict=True)
        return {"efficientnet_b0": tuple(gene.choices.index(value) for gene, value in pairs)}

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """The published space."""
        settings = {"input_shape": [3, 224, 224], "num_classes": 1000}
        return (Preset("accel_nasbench", settings, "1.04 * 10^11", "Ahmad et al., 2024"),)


def _ones(genotypes: IntArray) -> npt.NDArray[np.float32]:
    """Return genotypes one-hot: a product of two rows is the number of their equal genes."""
    ones = genotypes[:, :, None] == np.arange(max(MOST_LAYERS))
    return np.asarray(ones.reshape(len(genotypes), -1), np.float32)


def _mbconv(stage: int, layer: int, chosen: Choices) -> ModuleSpec | None:
    if layer > 1 and chosen[f"stage{stage}.layers"] < layer:
        return None
    inputs = STEM if stage == 1 else CHANNELS[stage - 2]
    return ModuleSpec(
        InvertedResidual,
        {
            "outputs": CHANNELS[stage - 1],
            "hidden": chosen[f"stage{stage}.expansion"]
            * (inputs if layer == 1 else CHANNELS[stage - 1]),
            "kernel": chosen[f"stage{stage}.kernel"],
            "stride": STRIDES[stage - 1] if layer == 1 else 1,
            "squeeze_excite": chosen[f"stage{stage}.squeeze_excite"],
            "activation": "swish",
        },
    )
