"""Sums looked up by genes: joining tables, further genes, and files of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from latency_predictors.calibration import derived, tables
from latency_predictors.calibration.derived import DerivedGenes
from latency_predictors.calibration.parts import kernels
from latency_predictors.calibration.tables import GeneTables, Table
from nas.network.space import SearchSpace
from nas.network.traces import GeneTable

SIZES = (2, 3, 4, 3)
ALL = np.array(list(itertools.product(*(range(size) for size in SIZES))))


def some_tables(columns: int = 2) -> list[Table]:
    rng = np.random.default_rng(0)
    genes = [(), (0,), (2,), (0, 2), (1, 3), (0, 2), (0, 1, 2, 3), (3,)]
    return [Table(g, rng.standard_normal([*(SIZES[i] for i in g), columns])) for g in genes]


def direct(summed: list[Table]) -> np.ndarray:
    rows = [sum(table.values[tuple(row[list(table.genes)])] for table in summed) for row in ALL]
    return np.array(rows)


@pytest.mark.parametrize("cells", [1, 12, 1 << 13])
def test_joined_tables_give_the_same_sums(cells: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "JOINED_CELLS", cells)
    some = some_tables()
    joined = GeneTables.joined(some, DerivedGenes(SIZES))
    assert len(joined.tables) < len(some)
    assert (len(joined.tables) == 1) == (cells == 1 << 13)
    np.testing.assert_allclose(joined(ALL), direct(some), rtol=0, atol=2e-6)


def test_rows_are_looked_up_in_portions(monkeypatch: pytest.MonkeyPatch):
    some = GeneTables.joined(some_tables(), DerivedGenes(SIZES))
    whole = some(ALL)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 5)
    np.testing.assert_array_equal(some(ALL), whole)
    assert some(ALL[:0]).shape == (0, 2)


def test_a_further_gene_stands_for_a_pattern_of_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(derived, "FEW_GENOTYPES", 1)
    genes = DerivedGenes(SIZES)
    pattern = np.random.default_rng(1).integers(0, 2, SIZES[:3]).astype(np.int32)
    first = genes.add(GeneTable((0, 1, 2), pattern))
    assert first.genes == (len(SIZES),)
    assert genes.sizes[-1] == 2
    # The same pattern, whatever its values mean, is the same gene.
    again = genes.add(GeneTable((0, 1, 2), 7 - 3 * pattern))
    assert again.genes == first.genes
    assert len(genes.tables) == 1
    codes = genes.codes(ALL)
    expected = pattern[tuple(ALL[:, :3].T)]
    np.testing.assert_array_equal(first.values[codes[first.genes]], expected)
    np.testing.assert_array_equal(again.values[codes[again.genes]], 7 - 3 * expected)


def test_what_does_not_matter_makes_no_gene():
    genes = DerivedGenes((2, 8, 8))
    values = np.zeros((8, 8), np.int32)
    values[3] = 5
    values[:, 2] = 9
    cared = np.ones((8, 8), bool)
    cared[:, 2] = False
    table = genes.add(GeneTable((1, 2), values), cared)
    assert table.genes == (1,)
    assert table.values.tolist() == [0, 0, 0, 5, 0, 0, 0, 0]
    assert not genes.tables


def test_a_file_holds_everything(space: SearchSpace, tmp_path: Path):
    parts = kernels(space, 16)
    values = np.random.default_rng(2).standard_normal((len(parts.parts), 5))
    before = parts.tables(values)
    np.savez(tmp_path / "tables.npz", **before.arrays())
    with np.load(tmp_path / "tables.npz", allow_pickle=False) as file:
        after = GeneTables.from_arrays(dict(file), space.cardinalities)
    genotypes = space.samples(500, np.random.default_rng(3))
    np.testing.assert_array_equal(after(genotypes), before(genotypes))


@pytest.mark.parametrize("cardinalities", [(2, 3, 5, 3), (2, 3, 4)])
def test_tables_of_another_space_are_refused(cardinalities: tuple[int, ...]):
    arrays = GeneTables(some_tables(), DerivedGenes(SIZES)).arrays()
    with pytest.raises((ValueError, IndexError)):
        GeneTables.from_arrays(arrays, cardinalities)
