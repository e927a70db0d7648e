"""Kernels and reorders against the graphs that ONNX Runtime makes of the same networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_costs import costs_of
from whole_networks import kernel_counts, network_kernels, optimised, runtime_counts

import search_spaces
from latency_predictors.additive import BLOCK_WIDTHS
from nas.core.space import Genotype
from nas.network.assembly import Assembler
from nas.network.space import SearchSpace

NETWORKS = 3

UPPER = ("relu",)
"""A convolution of another block may compute a ReLU that has no other reader."""

Pairs = list[tuple[Genotype, Counter[str]]]
"""Networks, and what ONNX Runtime runs for each."""


def darts() -> SearchSpace:
    operations = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "dil_conv_3x3")
    few = {"cells_per_stage": (1,), "operations_per_edge": operations}
    return search_spaces.get("darts", input_shape=(3, 32, 32), num_classes=10, **few)


@pytest.fixture(scope="module")
def of_darts(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """One network for each number of channels: below, at and beside multiples of a block."""
    space, rng = darts(), np.random.default_rng(0)
    assert {gene.name: gene for gene in space.genes}["channels"].choices == (8, 16, 36)
    found: dict[int, Genotype] = {}
    while len(found) < NETWORKS:
        genotype = space.sample(rng)
        found.setdefault(space.decode(genotype)["channels"], genotype)
    return run(space, list(found.values()), tmp_path_factory.mktemp("darts"))


@pytest.fixture(scope="module")
def width(of_darts: Pairs) -> int:
    """The width of a block on this processor: the one that explains the reorders best."""
    space = darts()

    def missed(width: int) -> int:
        kinds = ("reorder_input", "reorder_output")
        pairs = [(kernel_counts(space, g, width), counted) for g, counted in of_darts]
        return sum(abs(ours[kind] - theirs[kind]) for ours, theirs in pairs for kind in kinds)

    return min(BLOCK_WIDTHS, key=missed)


def run(space: SearchSpace, genotypes: list[Genotype], folder: Path) -> Pairs:
    files = Assembler(space).write(genotypes, folder)
    graphs = [optimised(file) for file in files]
    return [(g, runtime_counts(graph)) for g, graph in zip(genotypes, graphs, strict=True)]


def assert_equal(space: SearchSpace, pairs: Pairs, width: int) -> None:
    for genotype, theirs in pairs:
        ours = kernel_counts(space, genotype, width)
        for kind in UPPER:
            assert theirs.pop(kind, 0) <= ours.pop(kind, 0)
        assert ours == theirs, genotype


def test_cells_of_branches(of_darts: Pairs, width: int):
    # Pools, concatenations and additions of tensors with and without blocked channels.
    kinds = set().union(*(counts for _, counts in of_darts))
    assert {"maxpool2d blocked", "avgpool2d blocked", "conv blocked"} <= kinds or width == 1
    assert_equal(darts(), of_darts, width)


def test_cells_of_few_channels(width: int, tmp_path: Path):
    # The last stage's channels fill a block. The pools between stages round odd sizes up, which
    # ONNX Runtime does not do on blocked channels, so there must be none before.
    settings = {"channels": max(width // 4, 1), "cells_per_stage": 1}
    space = search_spaces.get("nasbench201", input_shape=(3, 16, 16), num_classes=10, **settings)
    rng = np.random.default_rng(1)
    genotypes = {space.sample(rng): None for _ in range(8)}
    # The runtime computes beforehand what follows from a node of zeros alone.
    connected = [g for g in genotypes if not has_zeros(space, g)][:NETWORKS]
    assert_equal(space, run(space, connected, tmp_path), width)


def has_zeros(space: SearchSpace, genotype: Genotype) -> bool:
    return any(block.module.__name__ == "Zeros" for block in space.place(genotype))


def test_chains_of_inverted_bottlenecks(width: int, tmp_path: Path):
    settings: dict[str, Any] = {
        "resolutions": (32,),
        "max_depth": 2,
        "stage_channels": (16, 24, 40),
        "stage_strides": (1, 2, 2),
    }
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10, **settings)
    rng = np.random.default_rng(2)
    genotypes = [space.sample(rng) for _ in range(NETWORKS)]
    assert_equal(space, run(space, genotypes, tmp_path), width)


@pytest.mark.parametrize("width", BLOCK_WIDTHS)
def test_blocks_pad_channels_and_leave_arithmetic_at_least_as_it_is(width: int):
    space = darts()
    genotype = space.sample(np.random.default_rng(3))
    kernels = network_kernels(space, genotype, width)
    macs = sum(kernel.macs for kernel in kernels)
    assert (
        macs == costs_of(space, genotype).macs
        if width == 1
        else macs > costs_of(space, genotype).macs
    )
    for kernel in kernels:
        assert not (kernel.blocked and width == 1)
        assert not kernel.blocked or kernel.output_channels % width == 0
    reorders = [kernel for kernel in kernels if kernel.kind.startswith("reorder")]
    assert bool(reorders) == (width > 1)
    assert not any(kernel.macs or kernel.params or kernel.epilogue for kernel in reorders)


def test_normalisations_and_activations_are_computed_by_convolutions():
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    genotype = space.sample(np.random.default_rng(4))
    kernels = network_kernels(space, genotype, 16)
    layers = costs_of(space, genotype).layers
    convolutions = [kernel for kernel in kernels if kernel.is_convolution]
    kinds = [layer.kind for layer in layers if layer.kind.startswith(("conv", "depthwise"))]
    assert sorted(kernel.kind for kernel in convolutions) == sorted(kinds)
    # Every one of them in this space follows a convolution.
    fused = Counter(kind for kernel in convolutions for kind in kernel.epilogue)
    for kind in ("relu6", "hardswish", "relu", "hardsigmoid", "add"):
        assert fused[kind] == sum(layer.kind == kind for layer in layers)
    assert not {"batchnorm2d", *fused} & {kernel.kind for kernel in kernels}
