"""The parts that the networks of a space are made of: kernels, or whole blocks."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from latency_predictors.calibration.derived import DerivedGenes
from latency_predictors.calibration.fusion import Fused, Kernel, Origin, fuse
from latency_predictors.calibration.tables import GeneTables, Table
from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.costs import Trace
from nas.network.space import SearchSpace
from nas.network.traces import GeneTable, PlacedTraces

Split: TypeAlias = Callable[[Trace, tuple[bool, ...]], Fused]
"""Returns the parts of a module, given of every input whether its channels are blocked."""

_Action: TypeAlias = tuple[str, str, float]
"""What a kernel does, whatever the size of its tensor: what was done to the tensor before, its
own layers, and outputs by inputs."""

_Read: TypeAlias = tuple[int, _Action]
"""A tensor, by the place that made it, and what is done to it."""

_Set: TypeAlias = frozenset[tuple[_Action, int]]
"""What is done to a tensor, each with the number of the part that does it."""

_Tables: TypeAlias = list[tuple[_Action, GeneTable]]
"""Of what is done to a tensor, the part that does it by the genes; -1 for none."""


MOST_CELLS = 1 << 24
"""Up to so many combinations of genes what becomes of a tensor is tabulated."""

INSTEAD = "use latency_predictor=gaussian_process"


@dataclass
class _Place:
    """What can stand in one place.

    Attributes:
        rows: Kernels of everything that can.
        table: Which of them, by the genes.
        sources: Of every input, the place that made it.
    """

    rows: list[tuple[Kernel, ...]]
    table: GeneTable
    sources: tuple[GeneTable, ...]


class Parts:
    """The distinct parts of a space, and which of them every network has.

    Attributes:
        parts: Every distinct one, in order of appearance.
        width: Channels of a block in the runtime's layout.
    """

    def __init__(self, space: SearchSpace, split: Split, *, width: int) -> None:
        """Split everything that can stand in a place of the networks.

        Args:
            space: Of the networks.
            split: Returns the parts of one module.
            width: Channels of a block in the runtime's layout.

        Raises:
            ConfigError: The space is too entangled to be tabulated.
        """
        try:
            traces = space.traces()
        except ValueError as error:
            raise ConfigError("search_space", str(error), "blocks of few genes", INSTEAD) from error
        self.width = width
        self._space = space
        self._genes = DerivedGenes(space.cardinalities, _common(traces))
        places = _split(traces, split, self._genes)
        self._found: dict[Kernel, int] = {}
        places += self._shared(places)
        rows = [
            [[self._number(kernel) for kernel in row if kernel.origin is None] for row in p.rows]
            for p in places
        ]
        self.parts = tuple(self._found)
        self._tables = [place.table for place in places]
        self._incidence = [_incidence(of_place, len(self.parts)) for of_place in rows]

    def _number(self, kernel: Kernel) -> int:
        return self._found.setdefault(replace(kernel, origin=None), len(self._found))

    def _shared(self, places: Sequence[_Place]) -> list[_Place]:
        """Return what several places do to one tensor, as places of the tensors.

        Kernels that no other place can share become kernels of their own place.
        """
        readers: dict[_Read, dict[tuple[int, int], GeneTable]] = defaultdict(dict)
        inputs: dict[tuple[int, int, _Action], set[_Read]] = defaultdict(set)
        for number, place in enumerate(places):
            for slot in range(len(place.sources)):
                for read, table in self._reads(place, slot).items():
                    readers[read][number, slot] = table
                    inputs[number, slot, read[1]].add(read)
        alone = {read for read, tables in readers.items() if len({n for n, _ in tables}) == 1}
        # An input that may come from several tensors is shared if one of them is.
        while partly := [reads for reads in inputs.values() if reads & alone and reads - alone]:
            alone = alone.difference(*partly)
        for number, place in enumerate(places):
            place.rows = [
                tuple(
                    replace(kernel, origin=None)
                    if kernel.origin is not None
                    and inputs[number, kernel.origin[0], _action(kernel, kernel.origin)] <= alone
                    else kernel
                    for kernel in row
                )
                for row in place.rows
            ]
        by_tensor: dict[int, dict[int, _Tables]] = defaultdict(lambda: defaultdict(list))
        for read, tables in readers.items():
            for (number, _), table in tables.items() if read not in alone else ():
                by_tensor[read[0]][number].append((read[1], table))
        of_tensors = [list(tables.values()) for tables in by_tensor.values()]
        return [place for tables in of_tensors for place in self._of_tensor(tables)]

    def _of_tensor(self, readers: Sequence[_Tables]) -> list[_Place]:
        """Return all that is done to one tensor as places: each part once.

        Args:
            readers: For every place that reads it, what that place does.
        """
        parts = tuple(self._found)
        does = [_sets(tables) for tables in readers]
        common = self._genes.common_of([table for table, _ in does])
        sizes = [self._genes.sizes[gene] for gene in common]
        found: dict[int | None, dict[int, list[_Set]]] = defaultdict(dict)
        for cell, index in enumerate(np.ndindex(*sizes)):
            gene, sets = None, [_Set()]
            for table, of_reader in does:
                gene, sets = self._united(gene, sets, table.at(common, index), of_reader)
            if any(sets):
                found[gene][cell] = sets
        places = []
        for gene, by_cell in found.items():
            rows: dict[_Set, int] = {_Set(): 0}
            choices = 1 if gene is None else self._genes.sizes[gene]
            values = np.zeros((math.prod(sizes), choices), np.int32)
            for cell, sets in by_cell.items():
                values[cell] = [rows.setdefault(each, len(rows)) for each in sets]
            genes, shape = (common, sizes) if gene is None else ((*common, gene), [*sizes, choices])
            kernels = [tuple(parts[number] for _, number in sorted(each)) for each in rows]
            places.append(_Place(kernels, GeneTable(genes, values.reshape(shape)).reduced(), ()))
        return places

    def _united(
        self, gene: int | None, sets: Sequence[_Set], table: GeneTable, others: Sequence[_Set]
    ) -> tuple[int | None, list[_Set]]:
        """Return a gene that tells the union of two sets of parts, and the sets by its choices.

        Args:
            gene: That tells the first set.
            sets: By its choices.
            table: Which of the others it is.
            others: What the table's numbers stand for.
        """
        other, meaning = self._genes.gene_of(table)
        second = [others[number] for number in meaning]
        genes = tuple(sorted(g for g in {gene, other} if g is not None))
        union = [[first | each for each in second] for first in sets]
        if gene is not None and gene == other:
            flat = [union[i][i] for i in range(len(sets))]
        elif gene is not None and other is not None and gene > other:
            flat = [row[i] for i in range(len(second)) for row in union]
        else:
            flat = [each for row in union for each in row]
        known = {each: i for i, each in enumerate(dict.fromkeys(flat))}
        numbers = np.array([known[each] for each in flat], np.int32)
        shape = [self._genes.sizes[g] for g in genes]
        united, choices = self._genes.gene_of(GeneTable(genes, numbers.reshape(shape)))
        every = list(known)
        return united, [every[number] for number in choices]

    def _reads(self, place: _Place, slot: int) -> dict[_Read, GeneTable]:
        """Return, for every tensor and action of one input, the part's number by the genes."""
        numbers: dict[_Action, npt.NDArray[np.int32]] = {}
        for i, row in enumerate(place.rows):
            for kernel in row:
                if kernel.origin is not None and kernel.origin[0] == slot:
                    none = np.full(len(place.rows), -1, np.int32)
                    found = numbers.setdefault(_action(kernel, kernel.origin), none)
                    found[i] = self._number(kernel)
        source = place.sources[slot]
        genes = tuple(sorted({*place.table.genes, *source.genes}))
        tables = {}
        for action, of_row in numbers.items():
            part = of_row[place.table.over(genes)]
            for tensor in np.unique(source.values):
                there = np.where(source.over(genes) == tensor, part, -1).astype(np.int32)
                if tensor >= 0 and (there >= 0).any():
                    tables[int(tensor), action] = GeneTable(genes, there).reduced()
        return tables

    def counts(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        """Return how often every part occurs in every network, shape `(n, parts)`."""
        codes = self._genes.codes(self._space.matrix(genotypes))
        counts = np.zeros((len(genotypes), len(self.parts)))
        for table, incidence in zip(self._tables, self._incidence, strict=True):
            counts += incidence[table.values.take(codes[table.genes])].toarray()
        return counts

    def tables(self, values: FloatArray) -> GeneTables:
        """Return sums over the parts of a network as tables over the genes.

        Args:
            values: Of every part, shape `(parts, columns)`.
        """
        tables = [
            Table(table.genes, np.asarray(incidence @ values)[table.values])
            for table, incidence in zip(self._tables, self._incidence, strict=True)
        ]
        return GeneTables.joined(tables, self._genes)


def _split(traces: Sequence[PlacedTraces], split: Split, derived: DerivedGenes) -> list[_Place]:
    """Split all modules, in execution order; `derived` learns what becomes of their outputs."""
    blocked = [GeneTable((), np.zeros((), np.int32))]  # of every tensor; the images are not
    places = []
    for place in traces:
        orders = [_order_of_input(source, blocked, derived) for source in place.sources]
        genes = tuple(sorted({*place.table.genes, *(g for t in orders for g in t.genes)}))
        sizes = _sizes(genes, derived)
        code = np.broadcast_to(place.table.over(genes), sizes).astype(np.int32)
        for order in orders:
            code = code * 2 + order.over(genes)
        codes, row_of = np.unique(code, return_inverse=True)
        fused = []
        for number in codes.tolist():
            trace = place.traces[number >> len(orders)]
            flags = [bool(number >> slot & 1) for slot in reversed(range(len(orders)))]
            inputs = 0 if trace is None else len(trace.input_values)
            fused.append(Fused((), False) if trace is None else split(trace, tuple(flags[:inputs])))
        table = GeneTable(genes, row_of.reshape(sizes).astype(np.int32))
        output = np.array([f.blocked for f in fused], np.int32)[table.values]
        there = np.array([place.traces[n >> len(orders)] is not None for n in codes.tolist()])
        blocked.append(derived.add(GeneTable(genes, output), there[table.values]))
        places.append(_Place([f.kernels for f in fused], table.reduced(), place.sources))
    return places


def _sizes(genes: Sequence[int], derived: DerivedGenes) -> list[int]:
    """Return the number of choices of some genes; refuses more combinations than fit in memory."""
    sizes = [derived.sizes[gene] for gene in genes]
    if math.prod(sizes) > MOST_CELLS:
        got = f"a block depends on {math.prod(sizes)} combinations of what is before it"
        raise ConfigError("search_space", got, "blocks of few genes", INSTEAD)
    return sizes


def _order_of_input(
    source: GeneTable, blocked: Sequence[GeneTable], derived: DerivedGenes
) -> GeneTable:
    """Return whether an input has blocked channels, given of every tensor whether it has."""
    tensors = [int(tensor) for tensor in np.unique(source.values) if tensor >= 0]
    genes = tuple(sorted({*source.genes, *(g for t in tensors for g in blocked[t].genes)}))
    sizes = _sizes(genes, derived)
    which = np.broadcast_to(source.over(genes), sizes)
    order = np.zeros(sizes, np.int32)
    for tensor in tensors:
        order = np.where(which == tensor, blocked[tensor].over(genes), order).astype(np.int32)
    return derived.add(GeneTable(genes, order), which >= 0)


def _action(kernel: Kernel, origin: Origin) -> _Action:
    layers = "+".join([kernel.kind, *kernel.epilogue])
    return origin[1], layers, kernel.output_values / kernel.input_values


def _sets(tables: _Tables) -> tuple[GeneTable, list[_Set]]:
    """Return which set of parts there is by the genes, and the sets; -1 is no part."""
    genes = tuple(sorted({gene for _, table in tables for gene in table.genes}))
    stacked = np.stack(np.broadcast_arrays(*[table.over(genes) for _, table in tables]), -1)
    rows = stacked.reshape(-1, len(tables))
    # Rows are told apart by a random projection, which is faster than comparing them.
    projected = rows @ np.random.default_rng(0).integers(1, 1 << 40, len(tables))
    _, first, number = np.unique(projected, return_index=True, return_inverse=True)
    actions = [action for action, _ in tables]
    sets = [
        _Set((action, part) for action, part in zip(actions, row, strict=True) if part >= 0)
        for row in rows[first].tolist()
    ]
    return GeneTable(genes, number.reshape(stacked.shape[:-1]).astype(np.int32)), sets


def _common(places: Sequence[PlacedTraces]) -> set[int]:
    """Return the genes on which most places depend."""
    dependent = Counter(gene for place in places for gene in place.table.genes)
    return {gene for gene, count in dependent.items() if 2 * count > len(places)}


def _incidence(rows: Sequence[Sequence[int]], parts: int) -> sparse.csr_array:
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    part_of = np.array([part for row in rows for part in row], np.int64)
    ones = np.ones(len(part_of))
    return sparse.csr_array((ones, (row_of, part_of)), shape=(len(rows), parts))


def _whole(trace: Trace, blocked: tuple[bool, ...]) -> Fused:
    """Return a module as one part, of the kind of its layers taken together."""
    del blocked
    kinds = sorted({layer.kind for layer in trace.layers})
    inputs, outputs = trace.layers[0].input_shape, trace.output_shape
    whole = Kernel(
        kind="-".join(kinds),
        epilogue=(),
        blocked=False,
        macs=trace.macs,
        params=trace.params,
        input_values=sum(layer.input_values for layer in trace.layers),
        output_values=sum(layer.output_values for layer in trace.layers),
        input_channels=inputs[0] if inputs else 1,
        output_channels=outputs[0] if outputs else 1,
    )
    return Fused((whole,), blocked=False)


@lru_cache(maxsize=8)
def kernels(space: SearchSpace, width: int) -> Parts:
    """Return the kernels of a space's networks; see `fuse`.

    Args:
        space: Of the networks.
        width: Channels of a block in the runtime's layout.
    """
    return Parts(space, lambda trace, blocked: fuse(trace, blocked, width), width=width)


@lru_cache(maxsize=8)
def blocks(space: SearchSpace) -> Parts:
    """Return the blocks of a space's networks."""
    return Parts(space, _whole, width=1)
