"""Parts of networks, counted and summed by tables, against a walk through each network."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from whole_networks import network_kernels

import search_spaces
from latency_predictors.calibration.fusion import fuse
from latency_predictors.calibration.parts import PartTable, blocks, kernels
from nas.network.space import SearchSpace

SPACES: dict[str, dict[str, Any]] = {
    "mobilenet": {
        "resolutions": (8, 12),
        "stage_channels": (16, 24),
        "stage_strides": (1, 2),
        "max_depth": 2,
    },
    "nasbench201": {"channels": 8, "cells_per_stage": 2},
    "darts": {
        "channels": (8, 16, 36),
        "cells_per_stage": (1, 2),
        "operations_per_edge": ("max_pool_3x3", "skip_connect", "dil_conv_3x3"),
    },
    "vit": {"depths": (2, 3), "widths": (48, 64), "heads": (1, 2), "mlp_ratios": (1.0, 2.0)},
}

NETWORKS = 40


@pytest.fixture(scope="module", params=SPACES)
def small(request: pytest.FixtureRequest) -> SearchSpace:
    side = 16 if request.param == "darts" else 8
    fields = SPACES[request.param]
    return search_spaces.get(request.param, input_shape=(3, side, side), num_classes=10, **fields)


@pytest.mark.parametrize("width", [1, 8, 16])
def test_kernels_are_those_of_the_network(small: SearchSpace, width: int):
    split_up = kernels(small, width)
    assert split_up.width == width
    genotypes = small.samples(NETWORKS, np.random.default_rng(width))
    for genotype, counts in zip(genotypes.tolist(), split_up.counts(genotypes), strict=True):
        ours = {split_up.parts[i]: int(counts[i]) for i in np.flatnonzero(counts)}
        assert ours == Counter(network_kernels(small, tuple(genotype), width)), genotype


def test_blocks_are_the_modules_of_the_network(small: SearchSpace):
    split_up = blocks(small)
    genotypes = small.samples(NETWORKS, np.random.default_rng(1))
    counts = split_up.counts(genotypes)
    assert len(set(split_up.parts)) == len(split_up.parts)
    assert counts.sum(axis=1).tolist() == [len(small.place(g)) for g in genotypes.tolist()]
    totals = counts @ [[part.macs, part.params] for part in split_up.parts]
    costs = small.costs(genotypes)[["macs_m", "params_m"]].to_numpy()
    np.testing.assert_allclose(totals / 1e6, costs)


@pytest.mark.parametrize("split", [blocks, lambda space: kernels(space, 16)])
def test_tables_sum_over_the_parts(small: SearchSpace, split: Any):
    split_up: PartTable = split(small)
    genotypes = small.samples(300, np.random.default_rng(3))
    networks = split_up.find(genotypes)
    values = np.random.default_rng(2).standard_normal((len(split_up.parts), 3))
    sums = split_up.sums(networks, values)
    expected = split_up.counts(genotypes) @ values
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-9)
    assert split_up.sums(split_up.find(genotypes[:0]), values).shape == (0, 3)


def test_what_is_looked_up_does_not_depend_on_what_was_before(small: SearchSpace):
    genotypes = small.samples(60, np.random.default_rng(5))
    at_once, one_by_one = (PartTable(small, lambda t, b: fuse(t, b, 8), width=8) for _ in "12")
    expected = at_once.counts(genotypes)
    for row in genotypes[::-1]:
        one_by_one.counts(row[None])
    counts = one_by_one.counts(genotypes)
    order = [one_by_one.add(part) for part in at_once.parts]
    np.testing.assert_array_equal(counts[:, order], expected)


def test_genotypes_are_read_with_and_without_folding(space: SearchSpace):
    # A million genotypes are looked up as they come; inactive genes must make no difference.
    split_up = kernels(space, 16)
    drawn = np.random.default_rng(4).integers(0, space.cardinalities, (200, len(space.genes)))
    np.testing.assert_array_equal(
        split_up.counts(drawn), split_up.counts(space.canonicalise(drawn))
    )
