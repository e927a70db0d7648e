"""Genes that follow from others: what a place hands on to the places behind it.

Whether a tensor has blocked channels depends on all that led to it. As one more gene it is looked
up once, and tables over the genes of the places behind it stay small.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray
from nas.network.traces import GeneTable

Numbers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Cells = npt.NDArray[np.intp]

MOST_CELLS = 8
"""Up to so many combinations of genes a table is used as it is."""

FEW_GENOTYPES = 1 << 16
"""Up to so many genotypes of a space tables are over its own genes alone: where all depends on
all, there would be more combinations of further genes than there are genotypes."""


class DerivedGenes:
    """The genes of a space, and further ones behind them.

    Attributes:
        sizes: Number of choices of every gene.
        tables: Of every further gene, over genes before it.
    """

    def __init__(self, cardinalities: Sequence[int], common: Collection[int] = ()) -> None:
        """Begin with the genes of a space.

        Args:
            cardinalities: Number of choices of every gene.
            common: Genes on which most places depend. Further genes are made for each of their
                choices, so that places that differ in nothing else share them.
        """
        self.sizes = list(cardinalities)
        self.tables: list[GeneTable] = []
        self._common = frozenset(common)
        self._flat: list[Cells] = []
        self._few = math.prod(cardinalities) <= FEW_GENOTYPES
        self._known: dict[tuple[tuple[int, ...], bytes], int] = {}

    def add(self, table: GeneTable, cared: Mask | None = None) -> GeneTable:
        """Return a table with the same values over few genes, some of which may be new.

        Args:
            table: Whole numbers from 0.
            cared: Where they matter; elsewhere they may change.
        """
        everywhere = np.ones(table.values.shape, bool)
        table, cared = _reduced(table, everywhere if cared is None else cared)
        kept = [axis for axis, gene in enumerate(table.genes) if gene in self._common]
        most = FEW_GENOTYPES if self._few else MOST_CELLS
        if len(kept) == len(table.genes) or math.prod(table.values.shape) <= most:
            return table
        own = tuple(gene for gene in table.genes if gene not in self._common)
        front = list(range(len(kept)))
        values = np.moveaxis(table.values, kept, front)
        cares = np.moveaxis(cared, kept, front)
        sizes = values.shape[: len(kept)]
        slices = values.reshape(-1, *values.shape[len(kept) :])
        found = [
            self._slice(GeneTable(own, of_slice), cares_of_slice)
            for of_slice, cares_of_slice in zip(slices, cares.reshape(slices.shape), strict=True)
        ]
        new = sorted({gene for gene, _ in found if gene is not None})
        result = np.zeros((len(found), *(self.sizes[gene] for gene in new)), np.int32)
        for row, (gene, meaning) in zip(result, found, strict=True):
            row[...] = meaning.reshape([-1 if gene == other else 1 for other in new])
        genes = (*(table.genes[axis] for axis in kept), *new)
        return GeneTable(genes, result.reshape(*sizes, *result.shape[1:])).reduced()

    def common_of(self, tables: Sequence[GeneTable]) -> tuple[int, ...]:
        """Return the common genes of some tables."""
        return tuple(sorted({gene for t in tables for gene in t.genes if gene in self._common}))

    def gene_of(self, table: GeneTable) -> tuple[int | None, list[int]]:
        """Return a gene for a table, and what its choices stand for; `None` for a constant."""
        gene, meaning = self._slice(table, np.ones(table.values.shape, bool))
        return gene, meaning.tolist()

    def _slice(self, table: GeneTable, cared: Mask) -> tuple[int | None, Numbers]:
        """Return a gene for a table, and what its choices stand for; `None` for a constant."""
        table, _ = _reduced(table, cared)
        if not table.genes:
            return None, table.values.reshape(1)
        if len(table.genes) == 1 and len(np.unique(table.values)) == table.values.size:
            return table.genes[0], table.values  # the gene itself
        meaning, first, number = np.unique(table.values, return_index=True, return_inverse=True)
        # Numbered in order of appearance, so that equal patterns are one gene.
        order = np.argsort(first)
        rank = np.argsort(order).astype(np.int32)
        numbers = rank[number].reshape(table.values.shape)
        key = table.genes, numbers.tobytes()
        if key not in self._known:
            self._known[key] = len(self.sizes)
            self.sizes.append(len(meaning))
            self.tables.append(GeneTable(table.genes, numbers))
        return self._known[key], meaning[order]

    def codes(self, genotypes: IntArray) -> Codes:
        """Return the cells of tables that genotypes belong to."""
        # Indices as numpy takes them, so that none are converted on the way.
        for table in self.tables[len(self._flat) :]:
            self._flat.append(table.values.ravel().astype(np.intp))
        codes = Codes(genotypes, self.sizes)
        for table, flat in zip(self.tables, self._flat, strict=True):
            codes.append(flat.take(codes[table.genes]))
        return codes

    def arrays(self) -> dict[str, IntArray]:
        """Return the further genes as arrays, for a file."""
        arrays = {}
        for i, table in enumerate(self.tables):
            arrays[f"derived{i}_genes"] = np.array(table.genes, np.int64)
            arrays[f"derived{i}_values"] = table.values.astype(np.int64)
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, FloatArray | IntArray], cardinalities: Sequence[int]
    ) -> DerivedGenes:
        """Rebuild what `arrays` returned."""
        derived = cls(cardinalities)
        while (name := f"derived{len(derived.tables)}") + "_genes" in arrays:
            genes = tuple(int(gene) for gene in arrays[f"{name}_genes"])
            values = arrays[f"{name}_values"].astype(np.int32)
            expected = tuple(derived.sizes[gene] for gene in genes)
            if values.shape != expected:
                raise ValueError(f"{name}: got shape {values.shape}, expected {expected}")
            derived.sizes.append(int(values.max()) + 1)
            derived.tables.append(GeneTable(genes, values))
        return derived


class Codes:
    """The cells of tables that genotypes belong to, by the tables' genes."""

    def __init__(self, genotypes: IntArray, sizes: Sequence[int]) -> None:
        """Begin with the genes of a space, shape `(n, g)`."""
        self._columns: list[Cells] = list(genotypes.T.astype(np.intp))
        self._sizes = sizes
        self._none = np.zeros(len(genotypes), np.intp)
        self._known: dict[tuple[int, ...], Cells] = {}

    def append(self, column: Cells) -> None:
        """Add one more gene, shape `(n,)`."""
        self._columns.append(column)

    def __getitem__(self, genes: tuple[int, ...]) -> Cells:
        """Return the flat positions in a table over `genes`, shape `(n,)`."""
        if len(genes) < 2:
            return self._columns[genes[0]] if genes else self._none
        if genes not in self._known:
            cells = self[genes[:-1]] * self._sizes[genes[-1]]
            cells += self._columns[genes[-1]]
            self._known[genes] = cells
        return self._known[genes]


def _reduced(table: GeneTable, cared: Mask) -> tuple[GeneTable, Mask]:
    """Return a table without the genes that make no difference where it matters."""
    genes, values = list(table.genes), np.where(cared, table.values, -1)
    for axis in reversed(range(len(genes))):
        highest = values.max(axis, keepdims=True)
        if ((values == highest) | (values < 0)).all():
            values = highest.squeeze(axis)
            del genes[axis]
    return GeneTable(tuple(genes), np.maximum(values, 0).astype(np.int32)), values >= 0
