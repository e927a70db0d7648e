"""Kernels of every kind of convolutional block against the graphs that ONNX Runtime makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_networks import kernel_counts, optimised, runtime_counts

import search_spaces
from latency_predictors.additive import BLOCK_WIDTHS
from nas.network.assembly import Assembler
from search_spaces.mobilenet import KINDS

KINDS_OF_BLOCKS = (
    ("mbconv", "ffn"),
    ("residual", "residual"),
    ("fused", "extra_dw"),
    ("convnext", "fused"),
)
"""Of the first and of the second block of every stage."""


@pytest.mark.parametrize(
    ("activation", "squeeze_excite"),
    [("relu", False), ("relu6", True), ("hswish", False), ("swish", True)],
)
def test_every_kind_of_block(activation: str, squeeze_excite: bool, tmp_path: Path):
    space = search_spaces.get(
        "mobilenet",
        input_shape=(3, 16, 16),
        num_classes=10,
        resolutions=(16,),
        widths=(1.0,),
        kernels=(3,),
        expansions=(2,),
        squeeze_excite=(squeeze_excite,),
        activations=(activation,),
        kinds=tuple(KINDS),
        max_depth=2,
    )
    chosen: dict[str, object] = {}
    for stage, kinds in enumerate(KINDS_OF_BLOCKS, 1):
        chosen[f"stage{stage}.depth"] = 2
        for block, kind in enumerate(kinds, 1):
            chosen[f"stage{stage}.block{block}.kind"] = kind
    values = [chosen.get(gene.name, gene.choices[0]) for gene in space.genes]
    genotype = tuple(g.choices.index(value) for g, value in zip(space.genes, values, strict=True))
    [file] = Assembler(space).write([genotype], tmp_path)
    theirs = runtime_counts(optimised(file))
    # The width of a block is the processor's.
    assert theirs in [kernel_counts(space, genotype, width) for width in BLOCK_WIDTHS]
