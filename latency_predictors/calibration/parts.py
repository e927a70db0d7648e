"""The parts that the networks of a space are made of: kernels, or whole blocks.

Every distinct module is split once for the shapes and memory layouts of its inputs. A network is
then a row of numbers, one a block, from which sums over its parts are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from scipy import sparse

from latency_predictors.calibration.fusion import Fused, Kernel, fuse
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.blocks import IntArray, ModuleSpec
from nas.network.costs import Shape, Trace, trace_spec
from nas.network.interpreter import ROWS_AT_ONCE, Ids, Interpretation
from nas.network.space import SearchSpace

Split: TypeAlias = Callable[[Trace, tuple[bool, ...]], Fused]
"""Returns the parts of a module, given of every input whether its channels are blocked."""

MOST_SHARED = 1 << 20
"""More distinct kernels of tensors than a space has."""


@dataclass(frozen=True)
class _TensorState:
    """What is known of a tensor: its shape, whether channels are blocked, and the deployment."""

    shape: Shape
    blocked: bool
    deployed: int


@dataclass(frozen=True)
class NetworkParts:
    """The parts of `n` networks.

    Attributes:
        rows: Of the table, one a block, shape `(blocks, n)`; row 0 has no parts.
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
        """Begin with an empty table, which `split` fills module by module."""
        self.width = width
        self.parts: list[Kernel] = []
        self._space = space
        self._split = split
        self._numbers: dict[Kernel, int] = {}
        self._interpreter = space.interpreter(self._step)
        self._shared: dict[tuple[str, int], int] = {}
        # The parts of every row of the table, one row after the other, and where each begins.
        self._own: list[int] = []
        self._own_starts = [0, 0]
        self._incidence = sparse.csr_array((0, 0))
        self._places = np.full((2, 0, 1), -1, np.int64)
        names = [gene.name for gene in space.genes]
        self._deployed = [names.index(name) for name in space.deployment_genes]
        self._deployed_sizes = [len(space.genes[i].choices) for i in self._deployed]

    def find(self, genotypes: Sequence[Genotype] | IntArray) -> NetworkParts:
        """Return the parts of networks."""
        checked = self._space.matrix(genotypes)
        rows, row_of, part_of = [], [], []
        for start in range(0, max(len(checked), 1), ROWS_AT_ONCE):
            portion = checked[start : start + ROWS_AT_ONCE]
            networks = self._interpreter(portion, self._inputs(portion))
            rows.append(networks.outcomes[1:])
            network, part = self._shared_parts(networks)
            row_of.append(start + network)
            part_of.append(part)
        pairs = np.concatenate(row_of), np.concatenate(part_of)
        shape = (len(checked), len(self.parts))
        shared = sparse.csr_array((np.ones(len(pairs[0])), pairs), shape=shape)
        return NetworkParts(np.concatenate(rows, axis=1), shared)

    def _inputs(self, genotypes: IntArray) -> Ids:
        """Return the states of the networks' images, shape `(n,)`."""
        deployed = np.zeros(len(genotypes), np.int64)
        if self._deployed:
            chosen = genotypes[:, self._deployed].T
            deployed = np.asarray(np.ravel_multi_index(tuple(chosen), self._deployed_sizes))
        shape, number = self._space.input_shape, self._interpreter.state
        known = [
            number(_TensorState(shape, False, i)) for i in range(math.prod(self._deployed_sizes))
        ]
        return np.array(known, np.int32)[deployed]

    def _shared_parts(self, networks: Interpretation) -> tuple[IntArray, IntArray]:
        """Return pairs of networks and parts; equal computations on one tensor are done once."""
        actions, slots = self._shared_places()
        first = np.zeros(len(networks.outcomes), np.int64)
        lengths = [len(read) for read in networks.reads.values()]
        first[list(networks.reads)] = np.cumsum([0, *lengths])[:-1]
        reads = np.concatenate(
            [np.zeros((0, networks.outcomes.shape[1]), np.int32), *networks.reads.values()]
        )
        done = [np.zeros(0, np.int64)]
        for action, slot in zip(actions, slots, strict=True):
            block, network = np.nonzero(action[networks.outcomes] >= 0)
            outcome = networks.outcomes[block, network]
            tensor = reads[first[block] + slot[outcome], network]
            key = network * len(networks.outcomes) + tensor
            done.append(key * MOST_SHARED + action[outcome])
        # Sorting is faster than np.unique, which hashes.
        every = np.sort(np.concatenate(done))
        once = every[np.flatnonzero(np.diff(every, prepend=-1))]
        part_of = np.array([part for _, part in self._shared] or [0], np.int64)
        return once // (len(networks.outcomes) * MOST_SHARED), part_of[once % MOST_SHARED]

    def _shared_places(self) -> IntArray:
        """Return the actions of every row of the table and their inputs, `(2, most, rows)`.

        An action is -1 where there is none.
        """
        _, most, known = self._places.shape
        if new := self._interpreter.outcomes[known:]:
            more = max(0, max(map(len, new)) - most)
            grown = ((0, 0), (0, more), (0, len(new)))
            self._places = np.pad(self._places, grown, constant_values=-1)
            for row, places in enumerate(new, known):
                for i, (slot, action) in enumerate(places):
                    self._places[:, i, row] = action, slot
        return self._places

    def sums(self, networks: NetworkParts, values: FloatArray) -> FloatArray:
        """Return sums of `values`, shape `(parts, columns)`, over the parts of networks.

        Returns:
            Shape `(n, columns)`.
        """
        of_rows = self.incidence @ values
        sums: FloatArray = networks.shared @ values[: networks.shared.shape[1]]
        for rows in networks.rows:
            sums += of_rows.take(rows, axis=0)
        return sums

    def counts(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        """Return how often every part occurs in every network, shape `(n, parts)`."""
        networks = self.find(genotypes)
        counts: FloatArray = networks.shared.toarray()
        for rows in networks.rows:
            counts += self.incidence[rows].toarray()
        return counts

    @property
    def incidence(self) -> sparse.csr_array:
        """How often every part occurs in every row of the table, shape `(rows, parts)`."""
        shape = (len(self._own_starts) - 1, len(self.parts))
        if self._incidence.shape != shape:
            own = np.array(self._own, np.int64), np.array(self._own_starts, np.int64)
            self._incidence = sparse.csr_array((np.ones(len(self._own)), *own), shape=shape)
        return self._incidence

    def add(self, part: Kernel) -> int:
        """Return the number of a part."""
        if part not in self._numbers:
            self._numbers[part] = len(self.parts)
            self.parts.append(part)
        return self._numbers[part]

    def _step(
        self, spec: ModuleSpec, inputs: Sequence[_TensorState]
    ) -> tuple[list[tuple[int, int]], _TensorState]:
        """Split a module, given what is known of its inputs, into a new row of the table.

        Returns:
            What is done to an input alone, which other blocks may do as well: the input and a
            number for what is done; and what is known of the output.
        """
        trace = trace_spec(spec.key, tuple(state.shape for state in inputs))
        fused = self._split(trace, tuple(state.blocked for state in inputs))
        deployed = inputs[0].deployed
        shared = []
        for kernel in fused.kernels:
            number = self.add(replace(kernel, origin=None, deployment=deployed))
            if kernel.origin is None:
                self._own.append(number)
            else:
                key = (kernel.origin[1], number)
                shared.append((kernel.origin[0], self._shared.setdefault(key, len(self._shared))))
        self._own_starts.append(len(self._own))
        return shared, _TensorState(trace.output_shape, fused.blocked, deployed)


def _whole(trace: Trace, blocked: tuple[bool, ...]) -> Fused:
    """Return a module as one part, of the kind of its layers taken together."""
    del blocked
    kinds = sorted({layer.operation for layer in trace.layers})
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
    """Return the kernels of a space's networks, given the width of a block; see `fuse`."""
    return PartTable(space, lambda trace, blocked: fuse(trace, blocked, width), width=width)


@lru_cache(maxsize=8)
def blocks(space: SearchSpace, width: int = 1) -> PartTable:
    """Return the blocks of a space's networks; arguments as for `kernels`."""
    return PartTable(space, _whole, width=width)
