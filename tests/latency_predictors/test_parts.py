"""Parts of networks, counted and summed by tables, against a walk through each network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from whole_networks import network_kernels

import search_spaces
from latency_predictors.calibration import parts
from latency_predictors.calibration.parts import Parts, blocks, kernels
from nas.core.errors import ConfigError
from nas.core.space import Gene
from nas.network import traces
from nas.network.blocks import Block, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces.nasbench201 import Classifier, Stem

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
    assert len(set(split_up.parts)) == len(split_up.parts)
    genotypes = small.samples(NETWORKS, np.random.default_rng(width))
    for genotype, counts in zip(genotypes.tolist(), split_up.counts(genotypes), strict=True):
        ours = {split_up.parts[i]: int(counts[i]) for i in np.flatnonzero(counts)}
        assert ours == Counter(network_kernels(small, tuple(genotype), width)), genotype


def test_every_kernel_occurs_in_some_network(small: SearchSpace):
    split_up = kernels(small, 8)
    genotypes = small.samples(4000, np.random.default_rng(0))
    seen = split_up.counts(genotypes).any(axis=0)
    # Rare ones are not drawn; parts that no network can have would be many.
    assert seen.mean() > 0.9


def test_blocks_are_the_modules_of_the_network(small: SearchSpace):
    split_up = blocks(small)
    genotypes = small.samples(NETWORKS, np.random.default_rng(1))
    counts = split_up.counts(genotypes)
    assert counts.sum(axis=1).tolist() == [len(small.place(g)) for g in genotypes.tolist()]
    totals = counts @ [[part.macs, part.params] for part in split_up.parts]
    costs = small.costs(genotypes)[["macs_m", "params_m"]].to_numpy()
    np.testing.assert_allclose(totals / 1e6, costs)


@pytest.mark.parametrize("split", [blocks, lambda space: kernels(space, 16)])
def test_tables_sum_over_the_parts(small: SearchSpace, split: Any):
    split_up: Parts = split(small)
    values = np.random.default_rng(2).standard_normal((len(split_up.parts), 3))
    genotypes = small.samples(300, np.random.default_rng(3))
    sums = split_up.tables(values)(genotypes)
    expected = split_up.counts(genotypes) @ values
    np.testing.assert_allclose(sums, expected, rtol=0, atol=5e-5)


def test_genotypes_are_read_with_and_without_folding(space: SearchSpace):
    # A million genotypes are looked up as they come; inactive genes must make no difference.
    split_up = kernels(space, 16)
    drawn = np.random.default_rng(4).integers(0, space.cardinalities, (200, len(space.genes)))
    np.testing.assert_array_equal(
        split_up.counts(drawn), split_up.counts(space.canonicalise(drawn))
    )


@dataclass(frozen=True, kw_only=True)
class Entangled(SearchSpace):
    """The stem's channels follow from all genes together."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(f"gene{i}", (0, 1, 2)) for i in range(6))

    def blocks(self) -> list[Block]:
        def stem(chosen: Any) -> ModuleSpec:
            return ModuleSpec(Stem, {"channels": 1 + sum(chosen[g.name] for g in self.genes)})

        head = ModuleSpec(Classifier, {"num_classes": self.num_classes})
        return [Block("stem", stem), Block("head", lambda _: head)]


def test_a_space_beyond_tables_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(traces, "MOST_CELLS", 100)
    space = Entangled(input_shape=(3, 4, 4), num_classes=2)
    with pytest.raises(ConfigError, match=r"block stem: depends on 729 combinations .*gaussian"):
        blocks(space)


def test_tensors_that_follow_from_too_much_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "MOST_CELLS", 1000)
    fields = SPACES["nasbench201"]  # whose last tensors follow from 5^6 genotypes
    space = search_spaces.get("nasbench201", input_shape=(3, 8, 8), num_classes=10, **fields)
    with pytest.raises(ConfigError, match=r"search_space: got 'a block depends on .*gaussian"):
        kernels(space, 4)
