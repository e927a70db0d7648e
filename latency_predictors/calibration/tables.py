"""Predictions as tables over a space's genes.

What is a sum over the places of a network is looked up: every place has a table over the genes on
which it depends. Tables over the same genes are added up beforehand, and small ones are joined, so
that few look-ups are left. A kernel that several places share is looked up in each of them and
counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray

JOINED_CELLS = 1 << 13
"""Tables are joined while they stay within the processor's second cache."""

ROWS_AT_ONCE = 1 << 13


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


@dataclass(frozen=True)
class SharedTerm:
    """A kernel of one tensor, which counts once however many places ask for it.

    Attributes:
        readers: For each place, genes and a table over them: 0 where it does not ask for the
            kernel, else which of `values`. All that ask, ask for the same.
        values: Shape `(cases, columns)`; the first row is zero.
    """

    readers: tuple[tuple[tuple[int, ...], npt.NDArray[np.int32]], ...]
    values: FloatArray

    @classmethod
    def of(
        cls,
        tables: Sequence[tuple[tuple[int, ...], npt.NDArray[np.int32]]],
        values: FloatArray,
    ) -> SharedTerm:
        """Number the cases anew.

        Args:
            tables: For each place, genes and a table over them of rows of `values`; -1 for none.
            values: Shape `(parts, columns)`.
        """
        parts = np.concatenate([table.ravel() for _, table in tables])
        # In order of appearance, so that terms of the same pattern get the same tables.
        cases = list(dict.fromkeys(part for part in parts.tolist() if part >= 0))
        numbers = np.zeros(len(values) + 1, np.int32)
        numbers[cases] = range(1, len(cases) + 1)
        kept = np.vstack([np.zeros((1, values.shape[1])), values[cases]])
        return cls(tuple((genes, numbers[table]) for genes, table in tables), kept)

    @property
    def pattern(self) -> tuple[object, ...]:
        """Equal for terms that differ in values only."""
        return tuple((genes, table.tobytes()) for genes, table in self.readers)


class GeneTables:
    """A sum of tables over genes."""

    def __init__(
        self, tables: Sequence[Table], shared: Sequence[SharedTerm], cardinalities: Sequence[int]
    ) -> None:
        """Join tables.

        Args:
            tables: With the same number of columns.
            shared: Terms beside them.
            cardinalities: Choices of every gene of the space.
        """
        self._sizes = list(cardinalities)
        self.tables = self._joined(tables)
        self.shared = _added_up(shared)

    def _cells(self, genes: Sequence[int]) -> int:
        return math.prod(self._sizes[gene] for gene in genes)

    def _joined(self, tables: Sequence[Table]) -> list[Table]:
        same: dict[tuple[int, ...], Table] = {}
        for table in tables:
            same[table.genes] = same[table.genes] + table if table.genes in same else table
        joined = sorted(same.values(), key=lambda t: self._cells(t.genes))
        while len(joined) > 1:
            pairs = [
                (self._cells({*first.genes, *second.genes}), i, j)  # type: ignore[arg-type]
                for i, first in enumerate(joined)
                for j, second in enumerate(joined[:i])
            ]
            cells, i, j = min(pairs)
            larger = max(self._cells(joined[i].genes), self._cells(joined[j].genes))
            if cells > max(JOINED_CELLS, larger):
                break
            second = joined.pop(i)
            joined[j] = joined[j] + second
        return joined

    def __call__(self, genotypes: IntArray) -> FloatArray:
        """Return the sums for rows of `(n, g)` checked genotypes, shape `(n, columns)`."""
        columns = self.tables[0].values.shape[-1]
        flat = [
            (t.genes, np.ascontiguousarray(t.values.reshape(-1, columns).T)) for t in self.tables
        ]
        shared = [
            ([(genes, table.ravel()) for genes, table in term.readers], term.values.T.copy())
            for term in self.shared
        ]
        sums = np.zeros((columns, len(genotypes)))
        for start in range(0, len(genotypes), ROWS_AT_ONCE):
            codes = _Codes(genotypes[start : start + ROWS_AT_ONCE], self._sizes)
            total = sums[:, start : start + ROWS_AT_ONCE]
            for genes, values in flat:
                for column, of_column in zip(total, values, strict=True):
                    column += of_column.take(codes[genes])
            for readers, values in shared:
                cases = np.maximum.reduce([table.take(codes[genes]) for genes, table in readers])
                for column, of_column in zip(total, values, strict=True):
                    column += of_column.take(cases)
        return sums.T

    def arrays(self) -> dict[str, FloatArray | IntArray]:
        """Return everything as arrays, for a file."""
        arrays: dict[str, FloatArray | IntArray] = {}
        for i, table in enumerate(self.tables):
            arrays[f"table{i}_genes"] = np.array(table.genes, np.int64)
            arrays[f"table{i}_values"] = table.values
        for i, term in enumerate(self.shared):
            arrays[f"shared{i}_values"] = term.values
            for j, (genes, cases) in enumerate(term.readers):
                arrays[f"shared{i}_reader{j}_genes"] = np.array(genes, np.int64)
                arrays[f"shared{i}_reader{j}_cases"] = cases.astype(np.int64)
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, FloatArray | IntArray], cardinalities: Sequence[int]
    ) -> GeneTables:
        """Rebuild what `arrays` returned.

        Raises:
            ValueError: The tables do not fit a space of these cardinalities.
        """

        def read(name: str, kind: str) -> tuple[tuple[int, ...], FloatArray | IntArray]:
            genes = tuple(int(gene) for gene in arrays[f"{name}_genes"])
            values = arrays[f"{name}_{kind}"]
            expected = tuple(cardinalities[gene] for gene in genes)
            if values.shape[: len(genes)] != expected:
                raise ValueError(f"{name}: got shape {values.shape}, expected {expected}")
            return genes, values

        tables: list[Table] = []
        shared: list[SharedTerm] = []
        while f"table{len(tables)}_genes" in arrays:
            genes, values = read(f"table{len(tables)}", "values")
            tables.append(Table(genes, np.asarray(values, float)))
        while (name := f"shared{len(shared)}") + "_values" in arrays:
            readers: list[tuple[tuple[int, ...], npt.NDArray[np.int32]]] = []
            while f"{name}_reader{len(readers)}_genes" in arrays:
                genes, cases = read(f"{name}_reader{len(readers)}", "cases")
                readers.append((genes, cases.astype(np.int32)))
            of_cases = np.asarray(arrays[f"{name}_values"], float)
            shared.append(SharedTerm(tuple(readers), of_cases))
        return cls(tables, shared, cardinalities)


def _added_up(shared: Sequence[SharedTerm]) -> list[SharedTerm]:
    """Add up the values of terms of the same pattern: the same cells, one after the other."""
    found: dict[tuple[object, ...], SharedTerm] = {}
    for term in shared:
        before = found.get(term.pattern)
        values = term.values if before is None else before.values + term.values
        found[term.pattern] = replace(term, values=values)
    return list(found.values())


class _Codes:
    """The cells of tables that genotypes belong to, by the tables' genes."""

    def __init__(self, genotypes: IntArray, sizes: Sequence[int]) -> None:
        self._columns = genotypes.T.astype(np.intp)
        self._sizes = sizes
        self._known: dict[tuple[int, ...], npt.NDArray[np.intp]] = {}

    def __getitem__(self, genes: tuple[int, ...]) -> npt.NDArray[np.intp]:
        """Return the flat positions in a table over `genes`, shape `(n,)`."""
        if genes not in self._known:
            if not genes:
                return np.zeros(self._columns.shape[1], np.intp)
            self._known[genes] = (
                self[genes[:-1]] * self._sizes[genes[-1]] + self._columns[genes[-1]]
            )
        return self._known[genes]
