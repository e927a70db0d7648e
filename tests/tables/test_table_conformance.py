"""What every published table must keep; a new one is tested because it is registered."""

from __future__ import annotations

import numpy as np
import pytest

import search_spaces
from nas import tables
from nas.core.errors import GenotypeError
from nas.network.space import SearchSpace
from nas.tables import Table


@pytest.fixture(scope="module", params=tables.names())
def table(request: pytest.FixtureRequest) -> Table:
    return tables.get(request.param)


def spaces(table: Table) -> list[SearchSpace]:
    return [
        search_spaces.get(
            table.space,
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            **table.space_settings,
        )
        for data in table.data.values()
    ]


def test_it_says_where_it_comes_from(table: Table):
    assert table.source
    assert table.costs
    assert {cost.origin for cost in table.costs.values()} <= {"measured", "estimated", "counted"}
    assert len({cost.objective for cost in table.costs.values()}) == len(table.costs)
    assert set(table.devices) == {name for name, cost in table.costs.items() if cost.latency}
    for data in table.data.values():
        assert data.splits
        assert set(data.splits.values()) <= {"validation", "validation and test", "test"}


def test_it_holds_what_its_space_proposes(table: Table):
    for space in spaces(table):
        samples = space.samples(200, np.random.default_rng(0))
        np.testing.assert_array_equal(table.genotypes[table.rows(samples)], samples)


def test_every_genotype_has_its_own_row(table: Table):
    np.testing.assert_array_equal(table.rows(table.genotypes), np.arange(len(table.genotypes)))
    assert len(table.rows([])) == 0


def test_numbers_are_in_their_units(table: Table):
    n = len(table.genotypes)
    for name, data in table.data.items():
        for epochs in data.splits:
            error, seconds = table.error(name, epochs), table.seconds(name, epochs)
            assert error.shape == (n,)
            assert ((error >= 0) & (error <= 100)).all()
            assert seconds is None or (seconds > 0).all()
    for name in table.costs:
        cost = table.cost(name)
        assert cost.shape == (n,)
        assert (cost > 0).all()


def test_a_genotype_that_is_not_there_is_refused(table: Table):
    largest = int(table.genotypes.max())
    for wrong in (
        [largest + 1, *table.genotypes[0, 1:].tolist()],
        [0],
        [-1] * table.genotypes.shape[1],
    ):
        with pytest.raises(GenotypeError, match="is no row of the table"):
            table.rows([tuple(wrong)])
