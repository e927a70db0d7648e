"""Predictions as tables over a space's genes.

What is a sum over the places of a network is looked up: every place has a table over the genes on
which it depends. Tables over the same genes are added up beforehand, and small ones are joined, so
that few look-ups are left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_predictors.calibration.derived import DerivedGenes
from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray

JOINED_CELLS = 1 << 13
"""Tables are joined while they stay within the processor's second cache."""

ROWS_AT_ONCE = 1 << 12

ROW_NUMBERS = 8
"""Cells hold a multiple of so many numbers of single precision: NumPy looks up 32 bytes at once."""


@dataclass(frozen=True)
class Table:
    """Values that depend on some genes.

    Attributes:
        genes: Positions of the genes, ascending.
        values: One axis for each gene, and a last one for the columns.
    """

    genes: tuple[int, ...]
    values: FloatArray

    def __add__(self, other: Table) -> Table:
        """Return the sum, over the genes of both."""
        genes = tuple(sorted({*self.genes, *other.genes}))
        return Table(genes, self._over(genes) + other._over(genes))

    def _over(self, genes: Sequence[int]) -> FloatArray:
        own = dict(zip(self.genes, self.values.shape, strict=False))
        return self.values.reshape([*(own.get(gene, 1) for gene in genes), -1])


class GeneTables:
    """A sum of tables over genes."""

    def __init__(self, tables: Sequence[Table], genes: DerivedGenes) -> None:
        """Sum tables as they are.

        Args:
            tables: With the same number of columns.
            genes: Those of the space, and those that follow from them.
        """
        self._genes = genes
        self.tables = list(tables)

    @classmethod
    def joined(cls, tables: Sequence[Table], genes: DerivedGenes) -> GeneTables:
        """Add up and join tables, so that few are left; the arguments are those of the class."""

        def count(of: Collection[int]) -> int:
            return math.prod(genes.sizes[gene] for gene in of)

        same: dict[tuple[int, ...], Table] = {}
        for table in tables:
            same[table.genes] = same[table.genes] + table if table.genes in same else table
        joined = sorted(same.values(), key=lambda table: count(table.genes))
        while len(joined) > 1:
            pairs = [
                (count({*first.genes, *second.genes}), i, j)
                for i, first in enumerate(joined)
                for j, second in enumerate(joined[:i])
            ]
            cells, i, j = min(pairs)
            larger = max(count(joined[i].genes), count(joined[j].genes))
            if cells > max(JOINED_CELLS, larger):
                break
            second = joined.pop(i)
            joined[j] = joined[j] + second
        return cls(joined, genes)

    def __call__(self, genotypes: IntArray) -> FloatArray:
        """Return the sums for rows of `(n, g)` checked genotypes, shape `(n, columns)`.

        Summed in single precision: off by a few millionths of the largest summand.
        """
        columns = self.tables[0].values.shape[-1]
        flat = [(table.genes, _rows(table.values)) for table in self.tables]
        sums = np.empty((len(genotypes), columns))
        for start in range(0, len(genotypes), ROWS_AT_ONCE):
            codes = self._genes.codes(genotypes[start : start + ROWS_AT_ONCE])
            genes, rows = flat[0]
            total = rows.take(codes[genes], axis=0)
            for genes, rows in flat[1:]:
                total += rows.take(codes[genes], axis=0)
            sums[start : start + ROWS_AT_ONCE] = total[:, :columns]
        return sums

    def arrays(self) -> dict[str, FloatArray | IntArray]:
        """Return everything as arrays, for a file."""
        arrays: dict[str, FloatArray | IntArray] = dict(self._genes.arrays())
        for i, table in enumerate(self.tables):
            arrays[f"table{i}_genes"] = np.array(table.genes, np.int64)
            arrays[f"table{i}_values"] = table.values
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, FloatArray | IntArray], cardinalities: Sequence[int]
    ) -> GeneTables:
        """Rebuild what `arrays` returned.

        Raises:
            ValueError: The tables do not fit a space of these cardinalities.
        """
        derived = DerivedGenes.from_arrays(arrays, cardinalities)
        tables: list[Table] = []
        while (name := f"table{len(tables)}") + "_genes" in arrays:
            genes = tuple(int(gene) for gene in arrays[f"{name}_genes"])
            values = np.asarray(arrays[f"{name}_values"], float)
            expected = tuple(derived.sizes[gene] for gene in genes)
            if values.shape[: len(genes)] != expected:
                raise ValueError(f"{name}: got shape {values.shape}, expected {expected}")
            tables.append(Table(genes, values))
        return cls(tables, derived)


def _rows(values: FloatArray) -> NDArray[np.float32]:
    """Return a row for each cell, padded with zeros."""
    columns = values.shape[-1]
    rows = np.zeros((values.size // columns, columns + -columns % ROW_NUMBERS), np.float32)
    rows[:, :columns] = values.reshape(-1, columns)
    return rows
