"""The parts that the networks of a space are made of: kernels, or whole blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from latency_predictors.calibration.fusion import Kernel, fuse
from latency_predictors.calibration.tables import GeneTables, SharedTerm, Table
from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.costs import Trace
from nas.network.space import SearchSpace
from nas.network.traces import GeneTable, PlacedTraces

_Action: TypeAlias = tuple[str, float]
"""What a kernel does, whatever the size of its tensor: its layers, and outputs by inputs."""

_Read: TypeAlias = tuple[int, _Action]
"""A tensor, by the place that made it, and what is done to it."""


class Parts:
    """The distinct parts of a space, and which of them every network has.

    Attributes:
        parts: Every distinct one, in order of appearance.
    """

    def __init__(self, space: SearchSpace, split: Callable[[Trace], Sequence[Kernel]]) -> None:
        """Split everything that can stand in a place of the networks.

        Args:
            space: Of the networks.
            split: Returns the parts of one module.

        Raises:
            ConfigError: The space is too entangled to be tabulated.
        """
        try:
            self._places = space.traces()
        except ValueError as error:
            fix = "use latency_predictor=gaussian_process"
            raise ConfigError("search_space", str(error), "blocks of few genes", fix) from error
        self._space = space
        self._found: dict[Kernel, int] = {}
        known: dict[int, tuple[Kernel, ...]] = {}
        for place in self._places:
            for trace in place.traces:
                if id(trace) not in known:
                    known[id(trace)] = () if trace is None else tuple(split(trace))
        kernels = [[known[id(trace)] for trace in place.traces] for place in self._places]
        self._shared = self._share(kernels)
        rows = [
            [[self._number(kernel) for kernel in row if kernel.reads is None] for row in of_place]
            for of_place in kernels
        ]
        self.parts = tuple(self._found)
        self._incidence = [_incidence(of_place, len(self.parts)) for of_place in rows]

    def _number(self, kernel: Kernel) -> int:
        return self._found.setdefault(replace(kernel, reads=None), len(self._found))

    def _share(self, kernels: list[list[tuple[Kernel, ...]]]) -> list[list[GeneTable]]:
        """Find what several places do to one tensor.

        Kernels that no other place can share become kernels of their own, in `kernels`.

        Returns:
            For each such thing, a table for every place that may do it: the part's number, or -1.
        """
        readers: dict[_Read, dict[int, GeneTable]] = defaultdict(dict)
        inputs: dict[tuple[int, int, _Action], set[_Read]] = defaultdict(set)
        for number, (place, of_place) in enumerate(zip(self._places, kernels, strict=True)):
            for slot in range(len(place.sources)):
                for read, table in self._reads(place, of_place, slot).items():
                    before = readers[read].get(number)
                    readers[read][number] = table if before is None else _either(before, table)
                    inputs[number, slot, read[1]].add(read)
        alone = {read for read, tables in readers.items() if len(tables) == 1}
        # An input that may come from several tensors is shared if one of them is.
        while partly := [reads for reads in inputs.values() if reads & alone and reads - alone]:
            alone = alone.difference(*partly)
        for number, of_place in enumerate(kernels):
            for row, chosen in enumerate(of_place):
                of_place[row] = tuple(
                    replace(kernel, reads=None)
                    if kernel.reads is not None
                    and inputs[number, kernel.reads, _action(kernel)] <= alone
                    else kernel
                    for kernel in chosen
                )
        return [list(tables.values()) for read, tables in readers.items() if read not in alone]

    def _reads(
        self, place: PlacedTraces, kernels: Sequence[tuple[Kernel, ...]], slot: int
    ) -> dict[_Read, GeneTable]:
        """Return, for every tensor and action of one input, the part's number by the genes."""
        actions = {_action(k) for row in kernels for k in row if k.reads == slot}
        source = place.sources[slot]
        genes = tuple(sorted({*place.table.genes, *source.genes}))
        tables = {}
        for action in actions:
            numbers = np.full(len(kernels), -1, np.int32)
            for i, row in enumerate(kernels):
                for kernel in row:
                    if kernel.reads == slot and _action(kernel) == action:
                        numbers[i] = self._number(kernel)
            part = numbers[place.table.over(genes)]
            for tensor in np.unique(source.values):
                there = np.where(source.over(genes) == tensor, part, -1).astype(np.int32)
                if tensor >= 0 and (there >= 0).any():
                    tables[int(tensor), action] = GeneTable(genes, there)
        return tables

    def counts(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        """Return how often every part occurs in every network, shape `(n, parts)`."""
        matrix = self._space.matrix(genotypes)
        counts = np.zeros((len(matrix), len(self.parts) + 1))
        for place, incidence in zip(self._places, self._incidence, strict=True):
            counts[:, :-1] += incidence[_look_up(place.table, matrix)].toarray()
        rows = np.arange(len(matrix))
        for tables in self._shared:
            parts = np.max([_look_up(table, matrix) for table in tables], axis=0)
            counts[rows, parts] += 1  # what nobody does is -1, the column beyond the parts
        return counts[:, :-1]

    def tables(self, values: FloatArray) -> GeneTables:
        """Return sums over the parts of a network as tables over the genes.

        Args:
            values: Of every part, shape `(parts, columns)`.
        """
        tables = [
            Table(place.table.genes, np.asarray(incidence @ values)[place.table.values])
            for place, incidence in zip(self._places, self._incidence, strict=True)
        ]
        shared = [
            SharedTerm.of([(table.genes, table.values) for table in tables], values)
            for tables in self._shared
        ]
        return GeneTables(tables, shared, self._space.cardinalities)


def _action(kernel: Kernel) -> _Action:
    return "+".join([kernel.kind, *kernel.epilogue]), kernel.output_values / kernel.input_values


def _either(first: GeneTable, second: GeneTable) -> GeneTable:
    """Return the greater of two tables' numbers."""
    genes = tuple(sorted({*first.genes, *second.genes}))
    return GeneTable(genes, np.maximum(first.over(genes), second.over(genes)))


def _look_up(table: GeneTable, matrix: IntArray) -> npt.NDArray[np.int32]:
    return np.broadcast_to(table.values[tuple(matrix[:, g] for g in table.genes)], len(matrix))


def _incidence(rows: Sequence[Sequence[int]], parts: int) -> sparse.csr_array:
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    part_of = np.array([part for row in rows for part in row], np.int64)
    ones = np.ones(len(part_of))
    return sparse.csr_array((ones, (row_of, part_of)), shape=(len(rows), parts))


def _whole(trace: Trace) -> tuple[Kernel, ...]:
    """Return a module as one part, of the kind of its layers taken together."""
    kinds = sorted({layer.kind for layer in trace.layers})
    inputs, outputs = trace.layers[0].input_shape, trace.output_shape
    return (
        Kernel(
            kind="-".join(kinds),
            epilogue=(),
            macs=trace.macs,
            params=trace.params,
            input_values=sum(layer.input_values for layer in trace.layers),
            output_values=sum(layer.output_values for layer in trace.layers),
            input_channels=inputs[0] if inputs else 1,
            output_channels=outputs[0] if outputs else 1,
        ),
    )


@lru_cache(maxsize=8)
def kernels(space: SearchSpace) -> Parts:
    """Return the kernels of a space's networks; see `fuse`."""
    return Parts(space, fuse)


@lru_cache(maxsize=8)
def blocks(space: SearchSpace) -> Parts:
    """Return the blocks of a space's networks."""
    return Parts(space, _whole)
