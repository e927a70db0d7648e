"""What stands in each place of a network, as tables over the genes.

A block's module depends on the genes that it reads, and on the shapes of its inputs, which depend
on genes that earlier blocks read. Both together are tabulated once for a space; whatever is known
of a module (a latency, say) is then looked up for any number of genotypes at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.core.space import Gene
from nas.network.costs import Shape, Trace, trace_spec
from nas.network.table import BlockTable

MOST_CELLS = 1 << 22
"""Up to so many combinations of genes a block and its inputs' shapes are tabulated."""


@dataclass(frozen=True)
class GeneTable:
    """Whole numbers that depend on some genes.

    Attributes:
        genes: Positions of the genes, ascending.
        values: The numbers, with one axis for each of the genes.
    """

    genes: tuple[int, ...]
    values: npt.NDArray[np.int32]

    def over(self, genes: Sequence[int]) -> npt.NDArray[np.int32]:
        """Return the values with one axis for each of `genes`, of length 1 where it is not own."""
        shape = [
            self.values.shape[self.genes.index(gene)] if gene in self.genes else 1 for gene in genes
        ]
        return self.values.reshape(shape)

    def at(self, genes: Sequence[int], choices: Sequence[int]) -> GeneTable:
        """Return the table for given choices of some genes, over the rest of its own."""
        chosen = dict(zip(genes, choices, strict=True))
        index = tuple(chosen.get(gene, slice(None)) for gene in self.genes)
        rest = tuple(gene for gene in self.genes if gene not in chosen)
        return GeneTable(rest, np.asarray(self.values[index]))

    def reduced(self) -> GeneTable:
        """Return the table without the genes that make no difference."""
        genes, values = list(self.genes), self.values
        for axis in reversed(range(values.ndim)):
            first = np.take(values, [0], axis)
            if (values == first).all():
                values = first.squeeze(axis)
                del genes[axis]
        return GeneTable(tuple(genes), values)


@dataclass(frozen=True)
class PlacedTraces:
    """Every module that can stand in one place.

    Attributes:
        name: Of the block.
        traces: The modules' traces; `None` where no module stands.
        table: Which of them it is, by the genes.
        sources: Of every input, by the genes, whose output it is: 0 for the network's input, `i`
            for the `i`-th place; -1 for none.
    """

    name: str
    traces: tuple[Trace | None, ...]
    table: GeneTable
    sources: tuple[GeneTable, ...]


def tabulate(
    tables: Sequence[BlockTable], genes: Sequence[Gene], input_shape: Shape
) -> tuple[PlacedTraces, ...]:
    """Tabulate the traces of every block, in execution order; each distinct module is traced.

    Raises:
        ValueError: A block depends on more combinations of genes than `MOST_CELLS`.
    """
    sizes = [len(gene.choices) for gene in genes]
    shapes = {tuple(input_shape): 0}
    tensors = {0: _Tensor.constant(0, 0)}
    placed: list[PlacedTraces] = []
    for position, table in enumerate(tables, 1):
        if table.block.auxiliary:
            continue
        read = [tensors[i] for i in sorted({i for v in table.variants for i in v.inputs})]
        own = sorted({*table.genes, *(gene for tensor in read for gene in tensor.genes)})
        cells = math.prod(sizes[gene] for gene in own)
        if not table.dense or cells > MOST_CELLS:
            raise ValueError(f"block {table.block.name}: depends on {cells} combinations of genes")
        grid = _Grid(tuple(own), tuple(sizes[gene] for gene in own))
        place, tensors[position] = _tabulate_block(table, grid, tensors, shapes, len(placed) + 1)
        placed.append(place)
    return tuple(placed)


@dataclass(frozen=True)
class _Grid:
    """All combinations of some genes."""

    genes: tuple[int, ...]
    sizes: tuple[int, ...]

    def spread(self, table: GeneTable) -> npt.NDArray[np.int32]:
        """Return a table's values for all combinations."""
        return np.broadcast_to(table.over(self.genes), self.sizes)

    def table(self, values: npt.NDArray[np.int32]) -> GeneTable:
        """Return values of all combinations as a table of the genes that matter."""
        return GeneTable(self.genes, values).reduced()


@dataclass(frozen=True)
class _Tensor:
    """What a block returns: a shape's number, and the place that made it."""

    shape: GeneTable
    source: GeneTable

    @classmethod
    def constant(cls, shape: int, source: int) -> _Tensor:
        numbers = (np.full((), number, np.int32) for number in (shape, source))
        return cls(*(GeneTable((), number) for number in numbers))

    @property
    def genes(self) -> tuple[int, ...]:
        return (*self.shape.genes, *self.source.genes)


def _tabulate_block(
    table: BlockTable,
    grid: _Grid,
    tensors: Mapping[int, _Tensor],
    shapes: dict[Shape, int],
    place: int,
) -> tuple[PlacedTraces, _Tensor]:
    """Tabulate one block over a grid; `shapes` learns the shapes of its outputs."""
    variant_of = grid.spread(GeneTable(table.genes, table.grid))
    traces: dict[Trace | None, int] = {None: 0}
    found, output, source = (np.zeros(grid.sizes, np.int32) for _ in range(3))
    slots = max(len(variant.inputs) for variant in table.variants)
    sources = np.full((slots, *grid.sizes), -1, np.int32)
    for number, variant in enumerate(table.variants):
        where = variant_of == number
        read = [tensors[i] for i in variant.inputs]
        inputs = [grid.spread(tensor.shape)[where] for tensor in read]
        made = [grid.spread(tensor.source)[where] for tensor in read]
        if variant.spec is None:
            output[where], source[where] = inputs[0], made[0]
            continue
        source[where] = place
        for slot, values in enumerate(made):
            sources[slot, ...][where] = values  # a view, also where there are no genes
        cases, case_of = np.unique(np.stack(inputs, 1), axis=0, return_inverse=True)
        known = list(shapes)
        of_case = np.empty((len(cases), 2), np.int32)
        for row, case in zip(of_case, cases, strict=True):
            trace = trace_spec(variant.spec.key, tuple(known[i] for i in case))
            row[0] = traces.setdefault(trace, len(traces))
            row[1] = shapes.setdefault(trace.output_shape, len(shapes))
        found[where], output[where] = of_case[case_of.ravel()].T
    placed = PlacedTraces(
        name=table.block.name,
        traces=tuple(traces),
        table=grid.table(found),
        sources=tuple(grid.table(values) for values in sources),
    )
    return placed, _Tensor(grid.table(output), grid.table(source))
