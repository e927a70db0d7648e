"""Networks of many genotypes, gone through block by block, with every distinct case done once.

A block is not run on tensors but on what is known of them, their state: the shape, for one. What
comes of it is asked once for each module and states of its inputs. Everything that adds up over
blocks is then a sum of numbers that are looked up by outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nas.network.blocks import IntArray, ModuleSpec
from nas.network.table import BlockTable

Ids: TypeAlias = npt.NDArray[np.int32]

ROWS_AT_ONCE = 4096
"""Of many genotypes, so many are best interpreted at once: memory stays bounded."""

Step: TypeAlias = Callable[[ModuleSpec, Sequence[Any]], tuple[Any, Hashable]]
"""Returns the outcome of a module and the state of its output, given the states of its inputs."""


@dataclass(frozen=True)
class Interpretation:
    """The networks of `n` genotypes.

    Tensors are numbered: 0 is the network's input, `i` the output of the space's block `i - 1`.

    Attributes:
        outcomes: What comes of every block, a position in `Interpreter.outcomes`: shape
            `(tensors, n)`, 0 where the network has no such block.
        states: Of the tensors, positions in `Interpreter.states`: shape `(tensors + 1, n)`, 0
            where there is none. The last row is that of no tensor.
        reads: The tensors that a block reads, by the block's own, in execution order: shape
            `(inputs, n)`, -1 for none. Blocks that no network has are left out.
        output: The tensor that the network returns, shape `(n,)`.
    """

    outcomes: Ids
    states: Ids
    reads: dict[int, Ids]
    output: Ids


class Interpreter:
    """Goes through the blocks of a space's networks; what was met before is looked up.

    Attributes:
        outcomes: Every distinct one that was met; first `None`, for no module.
        states: Every distinct one that was met; first `None`, for no tensor.
    """

    def __init__(self, tables: Sequence[BlockTable], step: Step) -> None:
        """Begin without outcomes; `tables` are of a space's blocks, in execution order."""
        self.outcomes: list[Any] = [None]
        self.states: list[Any] = [None]
        self._step = step
        self._tensors = len(tables) + 1
        self._blocks = {
            position: table for position, table in enumerate(tables, 1) if not table.block.auxiliary
        }
        self._specs: list[ModuleSpec | None] = [None]
        self._spec_numbers: dict[Any, int] = {}
        self._state_numbers: dict[Hashable, int] = {}
        self._output_states = [0]
        self._cases = Cases(self._outcome)
        self._variants: dict[int, tuple[Ids, Ids]] = {}

    def state(self, state: Hashable) -> int:
        """Return the position of a state in `states`."""
        number = self._state_numbers.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
        return number

    def __call__(self, genotypes: IntArray, inputs: Ids | int) -> Interpretation:
        """Go through the blocks of the networks of checked genotypes, shape `(n, g)`.

        `inputs` are the states of the networks' inputs, `(n,)` or one for all.
        """
        networks = np.arange(len(genotypes))
        outcomes = np.zeros((self._tensors, len(genotypes)), np.int32)
        states = np.zeros((self._tensors + 1, len(genotypes)), np.int32)
        states[0] = inputs
        # A block without a module passes on another block's tensor.
        passed = np.full(states.shape, -1, np.int32)
        passed[0] = 0
        reads = {}
        output_states = np.array(self._output_states, np.int32)
        codes: dict[tuple[int, ...], IntArray] = {}
        for position, table in self._blocks.items():
            variant = table.variant_of(genotypes, codes)
            modules, read_blocks = self._described(position, table)
            module = modules[variant]
            read = passed[read_blocks[:, variant], networks]
            there = np.flatnonzero(module)
            if not len(there):
                passed[position] = read[0]
                continue
            if everywhere := len(there) == len(networks):
                passed[position] = position
            else:
                passed[position] = np.where(module, position, read[0])
                read[:, module == 0] = -1
            reads[position] = read
            where = slice(None) if everywhere else there
            found = self._cases.numbers([module[where], *states[read, networks][:, where]])
            if len(output_states) < len(self.outcomes):
                output_states = np.array(self._output_states, np.int32)
            outcomes[position, where] = found
            states[position, where] = output_states[found]
        return Interpretation(outcomes, states, reads, passed[max(self._blocks)])

    def _described(self, position: int, table: BlockTable) -> tuple[Ids, Ids]:
        """Return of every variant the number of its module and the blocks that it reads."""
        known = self._variants.get(position)
        # A table that is not dense finds variants as it goes.
        if known is None or len(known[0]) < len(table.variants):
            modules = [self._module(variant.spec) for variant in table.variants]
            slots = max(len(variant.inputs) for variant in table.variants)
            inputs = np.full((slots, len(modules)), -1, np.int32)
            for number, variant in enumerate(table.variants):
                inputs[: len(variant.inputs), number] = variant.inputs
            known = self._variants[position] = np.array(modules, np.int32), inputs
        return known

    def _module(self, spec: ModuleSpec | None) -> int:
        if spec is None:
            return 0
        number = self._spec_numbers.setdefault(spec.key, len(self._specs))
        if number == len(self._specs):
            self._specs.append(spec)
        return number

    def _outcome(self, case: tuple[int, ...]) -> int:
        """Return the position of what comes of a module's number and the states of its inputs."""
        given = case[: case.index(0)] if 0 in case else case
        if given != case:  # another variant of the block reads more
            return self._cases[given]
        spec = self._specs[case[0]]
        assert spec is not None
        outcome, state = self._step(spec, [self.states[i] for i in case[1:]])
        self.outcomes.append(outcome)
        self._output_states.append(self.state(state))
        return len(self.outcomes) - 1


class Cases(dict[tuple[int, ...], int]):
    """Numbers by case, a tuple of numbers; each is computed when its case is first met."""

    def __init__(self, compute: Callable[[tuple[int, ...]], int]) -> None:
        """Begin without cases; `compute` returns the number of a new one."""
        super().__init__()
        self._compute = compute

    def __missing__(self, case: tuple[int, ...]) -> int:
        number = self[case] = self._compute(case)
        return number

    def numbers(self, columns: Iterable[npt.NDArray[np.integer[Any]]]) -> IntArray:
        """Return the numbers of the cases whose i-th elements stand in the i-th column, `(n,)`."""
        lists = [column.tolist() for column in columns]
        cases = zip(*lists, strict=True)
        return np.fromiter(map(self.__getitem__, cases), np.int64, len(lists[0]))
