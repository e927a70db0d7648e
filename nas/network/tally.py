"""Costs of many genotypes at once.

Blocks are gone through in execution order, all genotypes side by side. A module is traced once per
distinct shape of its inputs; after that a genotype's costs are sums and maxima of looked-up
numbers. Memory is followed by liveness, exactly as in a trace of the whole network: while a module
runs, whatever later blocks still read is alive beside its own tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nas.network.blocks import IntArray
from nas.network.costs import BYTES_PER_VALUE, Shape, Trace, trace_spec
from nas.network.table import BlockTable

SUMMED = ("params", "macs", "activations", "model_bytes")

Ids: TypeAlias = npt.NDArray[np.int32]


class Tally:
    """Counts the costs of genotypes of one space."""

    def __init__(self, tables: Sequence[BlockTable], input_shape: Shape) -> None:
        """Count networks of `tables`, in execution order, for one input."""
        self._shapes = _Shapes()
        self._input = self._shapes.id(input_shape)
        self._blocks = {
            position: TracedBlock(table, self._shapes)
            for position, table in enumerate(tables, 1)
            if not table.block.auxiliary
        }
        self._tensors = len(tables) + 1

    def walk(self, genotypes: IntArray) -> Walk:
        """Go through the blocks of all networks of `(n, g)` genotypes side by side."""
        walk = Walk(genotypes, self._tensors, self._input)
        for position, block in self._blocks.items():
            walk.run(position, block)
        walk.keep_output(max(self._blocks))
        return walk

    def __call__(self, genotypes: IntArray) -> dict[str, IntArray]:
        """Return every cost of the rows of `(n, g)` genotypes, by the names in `Costs`."""
        walk = self.walk(genotypes)
        costs = {name: np.zeros(len(genotypes), np.int64) for name in SUMMED}
        for name, total in costs.items():
            for run in walk.runs:
                total += run.block.cost(name)[run.found]
        costs["peak_activation_bytes"] = walk.peak(self._shapes) * BYTES_PER_VALUE
        return costs


@dataclass
class BlockInput:
    """What one input of a block is in all genotypes.

    Attributes:
        tensor: Which tensor, shape `(n,)`; one number where it is the same everywhere.
        there: Whether there is one, shape `(n,)`; `None` for everywhere.
    """

    tensor: Ids | int
    there: npt.NDArray[np.bool_] | None


@dataclass
class BlockRun:
    """One block in all genotypes.

    Attributes:
        position: Of its output among the tensors.
        block: The block.
        found: Which of the block's traces stands there, shape `(n,)`.
        inputs: What it reads.
    """

    position: int
    block: TracedBlock
    found: Ids
    inputs: list[BlockInput]


class Walk:
    """The blocks of many networks: which tensors there are in each, and who reads them.

    Attributes:
        genotypes: Of the networks, shape `(n, g)`.
        tensors: Number of tensors that there may be: the input and one for every block.
        runs: Every block that some of the networks have, in execution order.
    """

    def __init__(self, genotypes: IntArray, tensors: int, input_shape: int) -> None:
        n = len(genotypes)
        self.genotypes = genotypes
        self.tensors = tensors
        self.runs: list[BlockRun] = []
        self._rows = np.arange(n)
        # A block without a module passes another tensor on, so a block's output has a source:
        # one for all genotypes, or one for each.
        self._source: list[Ids | int] = [0] * tensors
        self._shape = np.zeros((tensors, n), np.int32)
        self._shape[0] = input_shape
        self._last_reader = np.zeros((tensors, n), np.int32)

    def run(self, position: int, block: TracedBlock) -> None:
        """Let the block run after those before it, in the genotypes that have it."""
        variant = block.variant_of(self.genotypes)
        present = block.present[variant]
        if not present.any():
            self._source[position] = self._tensor(block.inputs[0], variant)
            return
        inputs = []
        found: Ids = variant
        for level, table in enumerate(block.inputs):
            tensor = self._tensor(table, variant)
            there = None if block.has[level].all() else block.has[level][variant]
            shape = self.at(self._shape, tensor)
            found = block.find(level, found, shape if there is None else np.where(there, shape, 0))
            self._note_reader(tensor, there, position)
            inputs.append(BlockInput(tensor, there))
        everywhere = present.all()
        self._source[position] = (
            position if everywhere else np.where(present, np.int32(position), inputs[0].tensor)
        )
        self._shape[position] = block.output_shapes[found]
        self.runs.append(BlockRun(position, block, found, inputs))

    def _tensor(self, table: Ids, variant: Ids) -> Ids | int:
        """Return which tensor an input is, from the blocks that variants read there."""
        blocks = np.unique(table)
        if len(blocks) == 1:
            return self._source[int(blocks[0])]
        chosen = table[variant]
        tensor = np.empty(len(chosen), np.int32)
        for block in blocks:
            rows = chosen == block
            source = self._source[block]
            tensor[rows] = source if isinstance(source, int) else source[rows]
        return tensor

    def at(self, matrix: Ids, tensor: Ids | int) -> Ids:
        """Return the row of a tensor, or of each genotype's own tensor, shape `(n,)`."""
        return matrix[tensor] if isinstance(tensor, int) else matrix[tensor, self._rows]

    def _note_reader(
        self, tensor: Ids | int, there: npt.NDArray[np.bool_] | None, position: int
    ) -> None:
        rows = self._rows if there is None else self._rows[there]
        if isinstance(tensor, int):
            self._last_reader[tensor, slice(None) if there is None else rows] = position
        else:
            self._last_reader[tensor if there is None else tensor[there], rows] = position

    def keep_output(self, position: int) -> None:
        """Note that the network returns the output of the block at `position`."""
        self._note_reader(self._source[position], None, self.tensors)

    def peak(self, shapes: _Shapes) -> IntArray:
        """Return the most values alive at once, shape `(n,)`."""
        held: IntArray = shapes.values[self._shape[0]]
        peak = held.copy()
        for run in self.runs:
            others, still = held.copy(), np.zeros(len(held), np.int64)
            used = run.found
            for slot, read in enumerate(run.inputs):
                kept = self.at(self._last_reader, read.tensor) > run.position
                size = shapes.values[self.at(self._shape, read.tensor)]
                same = np.full(len(held), slot, np.int32)
                for former in reversed(range(slot)):
                    same[read.tensor == run.inputs[former].tensor] = former
                counted = same == slot
                if read.there is not None:
                    kept &= read.there
                    counted &= read.there
                used = run.block.use(slot, used, kept, same)
                size *= counted
                others -= size
                still += size * kept
            np.maximum(peak, others + run.block.peaks(used), out=peak)
            output = shapes.values[self._shape[run.position]]
            held = others + still + output * (self._last_reader[run.position] > run.position)
        return peak


class TracedBlock:
    """The variants of one block for every shape of their inputs that was met.

    Attributes:
        table: Of the variants.
        traces: Of every variant and shapes of its inputs; `None` where no module stands.
    """

    def __init__(self, table: BlockTable, shapes: _Shapes) -> None:
        self.table = table
        self._shapes = shapes
        self._levels: list[PairNumbers] = []
        self.traces: list[Trace | None] = []
        self._costs: dict[str, IntArray] = {name: np.zeros(0, np.int64) for name in SUMMED}
        self._uses: list[PairNumbers] = []
        self._peaks = np.zeros(0, np.int64)
        self.output_shapes = np.zeros(0, np.int32)
        self._describe()

    def _describe(self) -> None:
        """Note what every variant reads; a table that is not dense finds variants as it goes."""
        variants = self.table.variants
        slots = max(len(variant.inputs) for variant in variants)
        self.present = np.array([variant.spec is not None for variant in variants])
        self.inputs = [
            np.array([v.inputs[slot] if slot < len(v.inputs) else 0 for v in variants], np.int32)
            for slot in range(slots)
        ]
        self.has = [
            np.array([v.spec is not None and slot < len(v.inputs) for v in variants])
            for slot in range(slots)
        ]
        new = slots - len(self._levels)
        self._levels += [PairNumbers() for _ in range(new)]
        self._uses += [PairNumbers() for _ in range(new)]

    def variant_of(self, genotypes: IntArray) -> Ids:
        """Return the variant of every row of `(n, g)` genotypes."""
        variant = self.table.variant_of(genotypes)
        if len(self.table.variants) > len(self.present):
            self._describe()
        return variant

    def find(self, level: int, found: Ids, shape: Ids) -> Ids:
        """Tell variants apart by the shape of one more input; the last one gives the trace."""
        ids = self._levels[level](found, shape)
        if level + 1 == len(self._levels):
            self._trace_new()
        return ids

    def _trace_new(self) -> None:
        last = len(self._levels) - 1
        new = range(len(self.traces), len(self._levels[last].pairs))
        for i in new:
            shape_ids = []
            for level in reversed(self._levels):
                i, shape_id = level.pairs[i]
                shape_ids.append(shape_id)
            variant = self.table.variants[i]
            shapes = [self._shapes.shapes[shape_id] for shape_id in reversed(shape_ids)]
            used = tuple(shapes[: len(variant.inputs)])
            self.traces.append(trace_spec(variant.spec.key, used) if variant.spec else None)
        if new:
            traces = self.traces[new.start :]
            for name, known in self._costs.items():
                added = [getattr(t, name) if t else 0 for t in traces]
                self._costs[name] = np.append(known, np.array(added, np.int64))
            ids = [self._shapes.id(t.output_shape) if t else 0 for t in traces]
            self.output_shapes = np.append(self.output_shapes, np.array(ids, np.int32))

    def cost(self, name: str) -> IntArray:
        """Return a cost of every trace."""
        return self._costs[name]

    def use(self, slot: int, used: Ids, kept: npt.NDArray[np.bool_], same: Ids) -> Ids:
        """Tell traces apart by what becomes of one more input.

        Args:
            slot: Which input.
            used: What was told apart so far.
            kept: Whether the input is still needed after the block.
            same: The first input that is the same tensor.
        """
        return self._uses[slot](used, 2 * same + kept)

    def peaks(self, used: Ids) -> IntArray:
        """Return the most values alive in a block at once, for traces told apart by all inputs."""
        for use in range(len(self._peaks), len(self._uses[-1].pairs)):
            trace, kept, same = use, [], []
            for pairs in reversed(self._uses):
                trace, code = pairs.pairs[trace]
                kept.append(bool(code % 2))
                same.append(code // 2)
            peak = 0
            if (found := self.traces[trace]) is not None:
                inputs = len(found.input_values)
                peak = found.peak_values(kept[::-1][:inputs], same[::-1][:inputs])
            self._peaks = np.append(self._peaks, peak)
        return self._peaks[used]


class PairNumbers:
    """Numbers pairs of small whole numbers in the order in which they appear.

    Attributes:
        pairs: Those that were met.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._ids = np.full((1, 1), -1, np.int32)

    def __call__(self, first: Ids, second: Ids) -> Ids:
        """Return the number of every pair, both of shape `(n,)`."""
        if not len(first):
            return first
        needed = (int(first.max()) + 1, int(second.max()) + 1)
        if needed[0] > self._ids.shape[0] or needed[1] > self._ids.shape[1]:
            rows, columns = (
                max(n, 2 * old) for n, old in zip(needed, self._ids.shape, strict=True)
            )
            grown = np.full((rows, columns), -1, np.int32)
            grown[: self._ids.shape[0], : self._ids.shape[1]] = self._ids
            self._ids = grown
        ids: Ids = self._ids[first, second]
        if (missing := ids < 0).any():
            for pair in sorted(
                set(zip(first[missing].tolist(), second[missing].tolist(), strict=True))
            ):
                self._ids[pair] = len(self.pairs)
                self.pairs.append(pair)
            ids = self._ids[first, second]
        return ids


class _Shapes:
    """Numbers shapes; 0 stands for none."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = [(0,)]
        self.values = np.zeros(1, np.int64)
        self._ids: dict[Shape, int] = {}

    def id(self, shape: Shape) -> int:
        """Return the number of a shape."""
        if shape not in self._ids:
            self._ids[shape] = len(self.shapes)
            self.shapes.append(shape)
            self.values = np.append(self.values, math.prod(shape))
        return self._ids[shape]
