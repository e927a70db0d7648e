"""The space of NAS-Bench-Macro against its published table."""

from __future__ import annotations

import numpy as np
import pytest

import search_spaces
from nas import tables
from nas.network.space import SearchSpace

TABLE = tables.get("nasbench_macro")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return search_spaces.get("nasbench_macro", input_shape=(3, 32, 32), num_classes=10)


def test_networks_have_the_published_parameters_and_multiply_accumulates(space: SearchSpace):
    assert len(TABLE.genotypes) == 3**8
    counted = space.costs(TABLE.genotypes)
    for name in ("params_m", "macs_m"):
        np.testing.assert_array_equal(counted[name], TABLE.cost(name))
    built = space.build(tuple(TABLE.genotypes[4321].tolist()))
    parameters = sum(parameter.numel() for parameter in built.parameters())
    assert parameters / 1e6 == TABLE.cost("params_m")[4321]


def test_genotypes_of_one_network_have_equal_rows(space: SearchSpace):
    canonical = space.canonicalise(TABLE.genotypes)
    assert len(np.unique(canonical, axis=0)) == space.size == 3969
    rows = TABLE.rows(canonical)
    for values in (TABLE.error("cifar10", 50), TABLE.cost("params_m"), TABLE.cost("macs_m")):
        np.testing.assert_array_equal(values[rows], values)


def test_the_best_network_is_as_published():
    error = TABLE.error("cifar10", 50)
    assert 100 - error.min() == pytest.approx(93.1267, abs=1e-3)
    assert TABLE.dataset("cifar10").splits == {50: "test"}
