"""The parts that the networks of a space are made of: kernels, or whole blocks.

Every block is split once for each distinct module, shapes and memory layouts of its inputs. A
network is then a row of numbers, one a block, from which sums over its parts are looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from latency_predictors.calibration.fusion import Fused, Kernel, fuse
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.costs import Trace
from nas.network.space import SearchSpace
from nas.network.tally import BlockRun, PairNumbers, Walk

Split: TypeAlias = Callable[[Trace, tuple[bool, ...]], Fused]
"""Returns the parts of a module, given of every input whether its channels are blocked."""

Ids: TypeAlias = npt.NDArray[np.int32]

MOST_SHARED = 1 << 20
"""More distinct kernels of tensors than a space has."""


@dataclass(frozen=True)
class NetworkParts:
    """The parts of `n` networks.

    Attributes:
        rows: Of the table, one a block, shape `(n, blocks)`; row 0 has no parts.
        shared: How often each part occurs that several blocks share, shape `(n, parts)`.
    """

    rows: Ids
    shared: sparse.csr_array


class PartTable:
    """The distinct parts of a space, and which of them every network has.

    The table grows while it is used: what a block is made of is found when it is first met.

    Attributes:
        parts: Every distinct one that was met, in order of appearance.
        width: Channels of a block in the runtime's layout.
    """

    def __init__(self, space: SearchSpace, split: Split, *, width: int) -> None:
        """Begin with an empty table.

        Args:
            space: Of the networks.
            split: Returns the parts of one module.
            width: Channels of a block in the runtime's layout.
        """
        self.width = width
        self.parts: list[Kernel] = []
        self._space = space
        self._split = split
        self._numbers: dict[Kernel, int] = {}
        self._rows: list[tuple[int, ...]] = [()]
        self._row_numbers: dict[tuple[int, ...], int] = {(): 0}
        self._splits: dict[
            tuple[int, tuple[bool, ...], int],
            tuple[Trace, tuple[int, bool, list[tuple[int, int]]]],
        ] = {}
        self._blocks: dict[int, _SplitBlock] = {}
        self._shared: dict[tuple[str, int], int] = {}
        self._incidence = sparse.csr_array((0, 0))
        names = [gene.name for gene in space.genes]
        self._deployed = [names.index(name) for name in space.deployment_genes]
        self._deployed_sizes = [len(space.genes[i].choices) for i in self._deployed]

    def find(self, genotypes: Sequence[Genotype] | IntArray) -> NetworkParts:
        """Return the parts of networks."""
        checked = self._space.matrix(genotypes)
        found = [(rows, *self._walk(walk)) for rows, walk in self._space.walks(checked)]
        blocks = max(of_blocks.shape[1] for _, of_blocks, _ in found)
        numbers = np.zeros((len(checked), blocks), np.int32)
        places = []
        for rows, of_blocks, shared in found:
            numbers[rows, : of_blocks.shape[1]] = of_blocks
            places.append(np.stack([rows[shared[0]], shared[1]]))
        row_of, part_of = np.concatenate(places, axis=1)
        shape = (len(checked), len(self.parts))
        shared_counts = sparse.csr_array((np.ones(len(row_of)), (row_of, part_of)), shape=shape)
        return NetworkParts(numbers, shared_counts)

    def sums(self, networks: NetworkParts, values: FloatArray) -> FloatArray:
        """Return sums over the parts of networks, shape `(n, columns)`.

        Args:
            networks: What `find` returned.
            values: Of every part, shape `(parts, columns)`.
        """
        of_rows = self.incidence @ values
        sums: FloatArray = networks.shared @ values[: networks.shared.shape[1]]
        for rows in networks.rows.T:
            sums += of_rows.take(rows, axis=0)
        return sums

    def counts(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        """Return how often every part occurs in every network, shape `(n, parts)`."""
        networks = self.find(genotypes)
        counts: FloatArray = networks.shared.toarray()
        for rows in networks.rows.T:
            counts += self.incidence[rows].toarray()
        return counts

    @property
    def incidence(self) -> sparse.csr_array:
        """How often every part occurs in every row of the table, shape `(rows, parts)`."""
        if self._incidence.shape != (len(self._rows), len(self.parts)):
            row_of = np.repeat(np.arange(len(self._rows)), [len(row) for row in self._rows])
            part_of = np.array([part for row in self._rows for part in row], np.int64)
            shape = (len(self._rows), len(self.parts))
            self._incidence = sparse.csr_array(
                (np.ones(len(part_of)), (row_of, part_of)), shape=shape
            )
        return self._incidence

    def add(self, part: Kernel) -> int:
        """Return the number of a part."""
        if part not in self._numbers:
            self._numbers[part] = len(self.parts)
            self.parts.append(part)
        return self._numbers[part]

    def split(
        self, trace: Trace | None, blocked: tuple[bool, ...], deployed: int
    ) -> tuple[int, bool, list[tuple[int, int]]]:
        """Split a module.

        Args:
            trace: Of the module; `None` for none.
            blocked: Of every input, whether its channels are blocked.
            deployed: Number of the choices of the deployment.

        Returns:
            The row of the table, whether the output is blocked, and what is done to an input
            alone, which other blocks may do as well: the input and a number for what is done.
        """
        if trace is None:
            return 0, False, []
        blocked = blocked[: len(trace.input_values)]
        # Equal modules on equal shapes share one trace. To hash its contents would take longer than
        # to split it; the entry holds the trace, so no other one can have its id.
        key = (id(trace), blocked, deployed)
        if key not in self._splits:
            self._splits[key] = (trace, self._split_anew(trace, blocked, deployed))
        return self._splits[key][1]

    def _split_anew(
        self, trace: Trace, blocked: tuple[bool, ...], deployed: int
    ) -> tuple[int, bool, list[tuple[int, int]]]:
        fused = self._split(trace, blocked)
        own, shared = [], []
        for kernel in fused.kernels:
            number = self.add(replace(kernel, origin=None, deployment=deployed))
            if kernel.origin is None:
                own.append(number)
            else:
                key = (kernel.origin[1], number)
                shared.append((kernel.origin[0], self._shared.setdefault(key, len(self._shared))))
        row = self._row_numbers.setdefault(tuple(own), len(self._rows))
        if row == len(self._rows):
            self._rows.append(tuple(own))
        return row, fused.blocked, shared

    def _walk(self, walk: Walk) -> tuple[Ids, IntArray]:
        """Return rows of the table, shape `(n, blocks)`, and pairs of networks and shared parts."""
        n = len(walk.genotypes)
        blocked = np.zeros((walk.tensors, n), np.int32)  # the images are not
        deployed: npt.NDArray[np.int32] = np.zeros(n, np.int32)
        if self._deployed:
            chosen = walk.genotypes[:, self._deployed].T
            deployed = np.asarray(np.ravel_multi_index(chosen, self._deployed_sizes), np.int32)
        rows, done = [], [np.zeros(0, np.int64)]
        networks = np.arange(n)
        for run in walk.runs:
            block = self._blocks.setdefault(run.position, _SplitBlock(self))
            found = block.find(run, walk, blocked, deployed)
            rows.append(block.rows[found])
            blocked[run.position] = block.blocked[found]
            for (slot, _), actions in block.shared.items():
                action = actions[found]
                there = np.flatnonzero(action >= 0)
                tensor = run.inputs[slot].tensor
                which = tensor if isinstance(tensor, int) else tensor[there]
                done.append((networks[there] * walk.tensors + which) * MOST_SHARED + action[there])
        # Equal computations on one tensor are done once.
        # Sorting is faster than np.unique, which hashes.
        every = np.sort(np.concatenate(done))
        once = every[np.flatnonzero(np.diff(every, prepend=-1))]
        part_of = np.array([part for _, part in self._shared] or [0], np.int64)
        pairs = np.stack([once // (walk.tensors * MOST_SHARED), part_of[once % MOST_SHARED]])
        return np.stack(rows, 1) if rows else np.zeros((n, 0), np.int32), pairs


class _SplitBlock:
    """Rows of the table for one block, by its trace and the layouts of its inputs.

    Attributes:
        rows: Of the table.
        blocked: Whether the output has blocked channels.
        shared: For the i-th thing that is done to an input and that other blocks may do as well,
            by the input and i: a number for it, -1 for nothing.
    """

    def __init__(self, table: PartTable) -> None:
        self._table = table
        self._levels = [PairNumbers()]
        self.rows = np.zeros(0, np.int32)
        self.blocked = np.zeros(0, np.int32)
        self.shared: dict[tuple[int, int], Ids] = {}

    def find(self, run: BlockRun, walk: Walk, blocked: Ids, deployed: Ids) -> Ids:
        """Return positions in `rows`, shape `(n,)`."""
        found = self._levels[0](run.found, deployed)
        if len(self._levels) <= len(run.inputs):
            self._levels += [PairNumbers() for _ in range(len(run.inputs) + 1 - len(self._levels))]
            self.rows, self.blocked, self.shared = self.rows[:0], self.blocked[:0], {}
        for level, read in zip(self._levels[1:], run.inputs, strict=True):
            flags = walk.at(blocked, read.tensor)
            found = level(found, flags if read.there is None else flags * read.there)
        if len(self._levels[-1].pairs) > len(self.rows):
            self._split_new(run)
        return found

    def _split_new(self, run: BlockRun) -> None:
        first = len(self.rows)
        rows, blocked = [], []
        actions: dict[tuple[int, int], dict[int, int]] = {}
        for number in range(first, len(self._levels[-1].pairs)):
            flags = []
            trace = number
            for level in reversed(self._levels):
                trace, flag = level.pairs[trace]
                flags.append(flag)
            deployed = flags.pop()
            layouts = tuple(bool(flag) for flag in reversed(flags))
            row, layout, shared = self._table.split(run.block.traces[trace], layouts, deployed)
            rows.append(row)
            blocked.append(layout)
            seen: Counter[int] = Counter()
            for slot, action in shared:
                actions.setdefault((slot, seen[slot]), {})[number] = action
                seen[slot] += 1
        self.rows = np.append(self.rows, np.array(rows, np.int32))
        self.blocked = np.append(self.blocked, np.array(blocked, np.int32))
        for key in self.shared.keys() | actions.keys():
            added = np.full(len(rows), -1, np.int32)
            for number, action in actions.get(key, {}).items():
                added[number - first] = action
            known = self.shared.get(key, np.full(first, -1, np.int32))
            self.shared[key] = np.append(known, added)


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
def kernels(space: SearchSpace, width: int) -> PartTable:
    """Return the kernels of a space's networks; see `fuse`.

    Args:
        space: Of the networks.
        width: Channels of a block in the runtime's layout.
    """
    return PartTable(space, lambda trace, blocked: fuse(trace, blocked, width), width=width)


@lru_cache(maxsize=8)
def blocks(space: SearchSpace, width: int = 1) -> PartTable:
    """Return the blocks of a space's networks; arguments as for `kernels`."""
    return PartTable(space, _whole, width=width)
