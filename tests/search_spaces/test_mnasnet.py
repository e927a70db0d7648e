"""The space of Accel-NASBench against its published table, and limited to the listed genotypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from whole_costs import costs_of

import search_spaces
from nas import tables
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace

TABLE = tables.get("accel_nasbench")


def space(**settings: str) -> SearchSpace:
    return search_spaces.get("mnasnet", input_shape=(3, 224, 224), num_classes=1000, **settings)


@pytest.fixture(scope="module")
def listed() -> SearchSpace:
    return space(listed="accel_nasbench")


def test_networks_have_the_published_parameters():
    counted = space().costs(TABLE.genotypes)
    np.testing.assert_allclose(counted["params_m"], TABLE.cost("params_m"), rtol=1e-9)
    # The published count has more than convolutions and linear layers in it.
    ratio = counted["macs_m"] / TABLE.cost("macs_m")
    assert ratio.between(0.85, 0.97).all()
    assert np.corrcoef(counted["macs_m"], TABLE.cost("macs_m"))[0, 1] > 0.98


def test_efficientnet_b0():
    b0 = space().references()["efficientnet_b0"]
    assert costs_of(space(), b0).params == 5_288_548


def test_the_whole_space_and_the_sample_know_their_sizes(listed: SearchSpace):
    assert space().size == math.prod(space().cardinalities) == 36**6 * 48
    assert listed.size == len(TABLE.genotypes) == 5123
    assert "left out" in TABLE.published["rows"]


def test_a_search_of_the_sample_meets_listed_genotypes_only(listed: SearchSpace):
    rng = np.random.default_rng(0)
    drawn = listed.samples(30, rng)
    TABLE.rows(drawn)
    np.testing.assert_array_equal(listed.canonicalise(TABLE.genotypes[:50]), TABLE.genotypes[:50])
    # The nearest stands for what is not listed.
    other = rng.integers(0, listed.cardinalities, (1, 28))
    nearest = listed.canonicalise(other)
    assert (nearest != other).sum() == (TABLE.genotypes != other).sum(axis=1).min()
    here = tuple(drawn[0].tolist())
    steps = {listed.mutate(here, rng) for _ in range(30)}
    assert here not in steps
    assert len(steps) > 2
    TABLE.rows(sorted(steps))


def test_an_unknown_table_is_refused():
    with pytest.raises(ConfigError, match="accel_nasbench"):
        space(listed="accel")
