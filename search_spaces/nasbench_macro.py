"""The space of NAS-Bench-Macro (Su et al., CVPR 2021): eight layers of three candidate blocks.

Three stages of two, three and three layers; each stage halves the resolution and doubles the
channels. A layer is an identity (in a stage's first place a strided convolution), or an inverted
residual with kernel 3 and expansion 3, or with kernel 5 and expansion 6. Identities behind a
stage's first place can be anywhere in it: of the 6,561 genotypes 3,969 are different networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import nn

from nas.core.space import Gene, Preset
from nas.network.blocks import Block, Choices, IntArray, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces import register
from search_spaces.layers.convolution import Classifier, ConvNormAct, InvertedResidual, conv_bn

OPERATIONS = ("identity", "mb3_k3", "mb6_k5")
BLOCKS = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}
"""Expansion and kernel size of the inverted residuals."""

STAGES = (2, 3, 3)
STEM, HEAD = 32, 1280


class StridedProjection(nn.Sequential):
    """A 1x1 convolution of stride 2 and its normalisation, for a stage's first identity."""

    def __init__(self, input_shape: Sequence[int], outputs: int) -> None:
        super().__init__(*conv_bn(input_shape[0], outputs, 1, 2))


@register("nasbench_macro")
@dataclass(frozen=True, kw_only=True)
class NasBenchMacroSpace(SearchSpace):
    """Eight layers, each with one of three blocks."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The block of every layer, in the order of the published table."""
        layers = [(stage, i) for stage, n in enumerate(STAGES, 1) for i in range(1, n + 1)]
        return tuple(Gene(f"stage{s}.layer{i}", OPERATIONS, ordinal=False) for s, i in layers)

    def blocks(self) -> Iterator[Block]:
        """Stem, eight layers, 1x1 convolution, classifier."""
        stem = ModuleSpec(ConvNormAct, {"outputs": STEM, "kernel": 3, "activation": "relu"})
        yield Block("stem", lambda _: stem)
        for stage, layers in enumerate(STAGES, 1):
            for layer in range(1, layers + 1):
                yield Block(f"stage{stage}_layer{layer}", partial(_candidate_block, stage, layer))
        head = ModuleSpec(ConvNormAct, {"outputs": HEAD, "kernel": 1, "activation": "relu"})
        yield Block("head", lambda _: head)
        classifier = ModuleSpec(Classifier, {"num_classes": self.num_classes})
        yield Block("classifier", lambda _: classifier)

    def canonicalise(self, genotypes: IntArray) -> IntArray:
        """Return each stage's identities behind its blocks, but for its first layer."""
        folded = genotypes.copy()
        start = 0
        for layers in STAGES:
            moved = folded[:, start + 1 : start + layers]
            order = np.argsort(moved == 0, axis=1, kind="stable")
            folded[:, start + 1 : start + layers] = np.take_along_axis(moved, order, axis=1)
            start += layers
        return folded

    @property
    def size(self) -> int:
        """Number of canonical genotypes: in a stage, a first layer and a sequence of blocks."""
        kinds = len(BLOCKS)
        sequences = [sum(kinds**n for n in range(layers)) for layers in STAGES]
        return int(np.prod([len(OPERATIONS) * n for n in sequences]))

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """The published networks."""
        settings = {"input_shape": [3, 32, 32], "num_classes": 10}
        return (Preset("nasbench_macro", settings, "6,561", "Su et al., CVPR 2021"),)


def _candidate_block(stage: int, layer: int, chosen: Choices) -> ModuleSpec | None:
    operation = chosen[f"stage{stage}.layer{layer}"]
    outputs = STEM * 2**stage
    if operation == "identity":
        return ModuleSpec(StridedProjection, {"outputs": outputs}) if layer == 1 else None
    expansion, kernel = BLOCKS[operation]
    return ModuleSpec(
        InvertedResidual,
        {
            "outputs": outputs,
            "hidden": expansion * (outputs // 2 if layer == 1 else outputs),
            "kernel": kernel,
            "stride": 2 if layer == 1 else 1,
            "squeeze_excite": False,
            "activation": "relu",
        },
    )
