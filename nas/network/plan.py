"""A search space's declaration, compiled into tables that answer for many genotypes at once."""

from __future__ import annotations

import keyword
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from nas.core.errors import ConfigError
from nas.core.space import Gene, Genotype, Graph
from nas.network.arena import aligned, arena_trace
from nas.network.blocks import INPUT, Block, IntArray, ModuleSpec
from nas.network.compact import SETTINGS
from nas.network.costs import BYTES_PER_VALUE, Shape, Trace, trace_spec
from nas.network.interpreter import ROWS_AT_ONCE, Cases, Interpretation, Interpreter, Step
from nas.network.module import CompactBlock, PlacedBlock
from nas.network.table import MOST_CELLS, BlockTable

SUMMED = ("params", "macs", "activations", "model_bytes")

MOST_SHARED_CASES = 1 << 20


@dataclass(frozen=True)
class BlockCase:
    """A module that stands in a block's place in some network.

    Attributes:
        block: The block.
        spec: The module.
        declared_inputs: Names of the blocks that it reads, or `input`.
        inputs: The states of its inputs.
        outcome: What comes of it.
    """

    block: Block
    spec: ModuleSpec
    declared_inputs: tuple[str, ...]
    inputs: tuple[Any, ...]
    outcome: Any


class Plan:
    """The blocks of a space with everything that can be said of them."""

    def __init__(
        self,
        genes: Sequence[Gene],
        blocks: Sequence[Block],
        input_shape: Shape,
        deployed: Sequence[str] = (),
    ) -> None:
        """Tabulate every block, in execution order; modules are traced when they are first met.

        The genes that are named in `deployed` matter although no block reads them.
        """
        self.genes = tuple(genes)
        names_of_genes = [gene.name for gene in self.genes]
        self._deployed = [names_of_genes.index(name) for name in deployed]
        self.input_shape = input_shape
        names = {INPUT: 0}
        self.tables: list[BlockTable] = []
        for position, block in enumerate(blocks, 1):
            reserved = hasattr(nn.Module, block.name) or keyword.iskeyword(block.name)
            if block.name in names or reserved or not block.name.isidentifier():
                raise ValueError(f"block {block.name!r}: expected a new Python identifier")
            self.tables.append(BlockTable(block, names, self.genes))
            if not block.auxiliary:
                names[block.name] = position
        self._traces = self.interpreter(_trace_step)
        self._summed = np.zeros((len(SUMMED), 1), np.int64)  # the first trace is none
        self._peaks = Cases(lambda case: self._peak_of(case, lambda trace: trace))
        self._arenas = Cases(lambda case: self._peak_of(case, arena_trace))
        readers = Counter(gene for table in self.tables for gene in table.genes)
        self._own = {gene for gene, count in readers.items() if count == 1} - {*self._deployed}
        firsts = [(t, t.first_of_equals(self._own)) for t in self.tables if t.dense]
        self._equals = [(t, first) for t, first in firsts if (first != np.arange(len(first))).any()]

    def active(self, genotypes: IntArray) -> npt.NDArray[np.bool_]:
        """Return which genes are read for every row of `(n, g)` genotypes, shape `(n, g)`."""
        read = np.zeros(genotypes.shape, bool)
        for table in {table.reading: table for table in self.tables}.values():
            table.mark_read(genotypes, read)
        read[:, self._deployed] = True
        return read

    def canonicalise(self, genotypes: IntArray) -> IntArray:
        """Return the first of the genotypes that differ in choices without an effect.

        These are choices that no block reads, and choices that give the only block that reads them
        the same module.
        """
        folded = np.where(self.active(genotypes), genotypes, 0)
        for table, first in self._equals:
            table.place_codes(first[table.codes(folded)], folded)
        return folded

    def roles(self, genotypes: IntArray) -> tuple[frozenset[str], ...]:
        """Return what each gene decides, as far as rows of `(n, g)` genotypes show it.

        Each gene takes all its choices in every row in turn. Its role is the set of arguments of
        modules that change with it, written `MODULE.ARGUMENT`, and of modules that are there for
        some of its choices only, written `MODULE`.
        """
        return tuple(
            frozenset(
                part
                for table in self.tables
                if gene in table.genes
                for part in table.decided_by(gene, len(self.genes[gene].choices), genotypes)
            )
            for gene in range(len(self.genes))
        )

    def size(self) -> int:
        """Return the number of genotypes that `canonicalise` returns.

        Raises:
            ValueError: Too many combinations of genes concern several blocks.
        """
        if not all(table.dense for table in self.tables):
            raise ValueError("size: a block reads too many combinations of genes")
        return math.prod(self._size(genes, tables) for genes, tables in self._independent())

    def _independent(self) -> list[tuple[set[int], list[BlockTable]]]:
        """Return the genes and blocks in groups, such that no block reads genes of two groups."""
        groups: list[tuple[set[int], list[BlockTable]]] = [({gene}, []) for gene in self._deployed]
        for table in self.tables:
            joined = [group for group in groups if group[0].intersection(table.genes)]
            genes = set(table.genes).union(*(group[0] for group in joined))
            blocks = [*(block for group in joined for block in group[1]), table]
            groups = [*(group for group in groups if group not in joined), (genes, blocks)]
        return groups

    def _size(self, genes: set[int], tables: Sequence[BlockTable]) -> int:
        """Return the number of canonical choices of one group of genes."""
        shared = sorted(genes - self._own)
        sizes = [len(self.genes[i].choices) for i in shared]
        if math.prod(sizes) > MOST_SHARED_CASES:
            raise ValueError(f"size: {len(shared)} genes concern several blocks")
        cases = np.zeros((math.prod(sizes), len(self.genes)), np.int64)
        cases[:, shared] = np.indices(sizes).reshape(len(sizes), len(cases)).T
        # A gene that is inactive in a case is counted at its first choice only.
        cases = cases[~((cases > 0) & ~self.active(cases)).any(axis=1)]
        factors = [np.ones(len(cases), np.int64)]
        factors += [self._ways(table, cases) for table in tables if not table.block.auxiliary]
        # Python's integers, because these are beyond 64 bits.
        return sum(math.prod(row) for row in np.stack(factors, axis=1).tolist())

    def _ways(self, table: BlockTable, cases: IntArray) -> IntArray:
        """Return how many modules a block can have in every case of the shared genes."""
        counts = table.distinct(self._own)
        picked = [
            np.zeros(len(cases), np.int64) if gene in self._own else cases[:, gene]
            for gene in table.genes
        ]
        return counts[tuple(picked)] if picked else np.full(len(cases), int(counts))

    def place(self, genotype: Genotype, *, auxiliary: bool = False) -> tuple[PlacedBlock, ...]:
        """Return the modules of one network in execution order; see `SearchSpace.place`."""
        row = np.array([genotype], np.int64)
        shapes: dict[int, Shape] = {0: self.input_shape}
        names = {0: INPUT}
        sources = {0: 0}
        declared = self._names
        placed = []
        for position, table in enumerate(self.tables, 1):
            variant = table.variants[int(table.variant_of(row, {})[0])]
            read = [sources[i] for i in variant.inputs]
            sources[position] = read[0] if variant.spec is None else position
            if variant.spec is None or (table.block.auxiliary and not auxiliary):
                continue
            input_shapes = tuple(shapes[i] for i in read)
            trace, arguments = trace_spec(variant.spec.key, input_shapes), variant.spec.arguments
            shapes[position], names[position] = trace.output_shape, table.block.name
            placed.append(
                (CompactBlock if SETTINGS.keys() & arguments.keys() else PlacedBlock)(
                    name=table.block.name,
                    module=variant.spec.module,
                    input_shapes=input_shapes,
                    arguments=arguments,
                    inputs=tuple(names[i] for i in read),
                    output_shape=trace.output_shape,
                    auxiliary=table.block.auxiliary,
                    declared_inputs=tuple(declared[i] for i in variant.inputs),
                )
            )
        return tuple(placed)

    def precisions(self, genotype: Genotype) -> tuple[str, ...]:
        """Return the precision of every layer with weights of one network, as they run."""
        traces = [
            trace_spec(ModuleSpec(block.module, block.arguments).key, block.input_shapes)
            for block in self.place(genotype)
        ]
        layers = (layer for trace in traces for layer in trace.layers)
        return tuple(layer.precision for layer in layers if layer.has_weights)

    @property
    def _names(self) -> list[str]:
        """The names of all tensors: the network's input and the blocks' outputs."""
        return [INPUT, *(table.block.name for table in self.tables)]

    def cases(self, step: Step) -> Iterator[BlockCase]:
        """Yield every module of every block, with the states of what it reads, in all networks.

        A tensor's state is tabulated over the genes that it depends on, so that states that occur
        together in no network are not combined.

        Args:
            step: Returns what comes of a module; the states of tensors are their shapes.

        Raises:
            ConfigError: Too many combinations of genes concern one block.
        """
        names = self._names
        states: dict[Hashable, int] = {self.input_shape: 0}
        # Of every tensor, the genes that its state depends on, and its number over their choices.
        tensors: list[tuple[list[int], npt.NDArray[np.int32]]] = [([], np.zeros((), np.int32))]
        for table in self.tables:
            read = sorted({i for variant in table.variants for i in variant.inputs})
            genes = sorted({*table.genes, *(gene for i in read for gene in tensors[i][0])})
            sizes = [len(self.genes[gene].choices) for gene in genes]
            if not table.dense or math.prod(sizes) > MOST_CELLS:
                raise ConfigError(
                    "search_space",
                    f"block {table.block.name}, which depends on {len(genes)} genes",
                    f"at most {MOST_CELLS} combinations of such genes, to go through all of them",
                    "let blocks read fewer genes each",
                )
            variant = np.broadcast_to(_over(genes, table.genes, table.grid), sizes)
            of_read = np.stack([np.broadcast_to(_over(genes, *tensors[i]), sizes) for i in read])
            slots = max(len(variant.inputs) for variant in table.variants)
            where = np.full((slots, len(table.variants)), -1)
            for number, each in enumerate(table.variants):
                where[: len(each.inputs), number] = [read.index(i) for i in each.inputs]
            places = where[:, variant]
            inputs = np.where(places < 0, -1, np.take_along_axis(of_read, places, 0))
            rows = np.stack([variant, *inputs]).reshape(slots + 1, -1)
            found, inverse = np.unique(rows, axis=1, return_inverse=True)
            known, outputs = list(states), []
            for number, *numbers in found.T.tolist():
                variant_of_case = table.variants[number]
                if variant_of_case.spec is None:
                    outputs.append(numbers[0])
                    continue
                spec, given = variant_of_case.spec, [known[i] for i in numbers if i >= 0]
                outcome, state = step(spec, given)
                outputs.append(states.setdefault(state, len(states)))
                declared = tuple(names[i] for i in variant_of_case.inputs)
                yield BlockCase(table.block, spec, declared, tuple(given), outcome)
            tensors.append(
                _without_idle(genes, np.array(outputs, np.int32)[inverse].reshape(sizes))
            )

    def graph(self, genotype: Genotype) -> Graph:
        """Return the graph of one network: a node for the input and for every block."""
        placed = {block.name: block for block in self.place(genotype)}
        names = [INPUT, *(t.block.name for t in self.tables if not t.block.auxiliary)]
        labels, edges = [INPUT], []
        for position, name in enumerate(names[1:], 1):
            block = placed.get(name)
            labels.append(label(block.module, block.arguments) if block else "")
            edges += [(names.index(read), position) for read in (block.inputs if block else ())]
        return Graph(tuple(labels), tuple(edges))

    def operations(self) -> tuple[str, ...]:
        """Return every label in the graphs of the space's networks."""
        specs = [v.spec for table in self.tables for v in table.variants if v.spec is not None]
        labels = {label(spec.module, spec.arguments) for spec in specs}
        return ("", "input", *sorted(labels))

    def describe(self, genotype: Genotype) -> list[dict[str, Any]]:
        """Return a record for every module of one network; see `SearchSpace.describe`."""
        return [
            {
                "name": block.name,
                "module": label(block.module, block.arguments),
                "inputs": list(block.inputs),
                "output_shape": list(block.output_shape),
                "params": trace_block(block).params,
                "macs": trace_block(block).macs,
            }
            for block in self.place(genotype)
        ]

    def tally(self, genotypes: IntArray) -> dict[str, IntArray]:
        """Return `params`, `macs`, `activations`, ... of every row, each of shape `(n,)`.

        They are exactly those of a trace of the whole network: sums over the blocks' own traces
        and, of memory, the maximum by liveness over all blocks.
        """
        starts = range(0, max(len(genotypes), 1), ROWS_AT_ONCE)
        tallies = [self._tally(genotypes[start : start + ROWS_AT_ONCE]) for start in starts]
        return {name: np.concatenate([each[name] for each in tallies]) for name in tallies[0]}

    def _tally(self, genotypes: IntArray) -> dict[str, IntArray]:
        run = self._traces(genotypes, self._traces.state(self.input_shape))
        costs = {}
        new = self._traces.outcomes[self._summed.shape[1] :]
        of_new = [[getattr(trace, name) for trace in new] for name in SUMMED]
        self._summed = np.concatenate([self._summed, np.array(of_new, np.int64)], axis=1)
        for name, of_traces in zip(SUMMED, self._summed, strict=True):
            costs[name] = of_traces[run.outcomes].sum(axis=0)
        peak = self._peak_values(run, self._peaks, self._state_values())
        costs["peak_activation_bytes"] = peak * BYTES_PER_VALUE
        return costs

    def arena_bytes(self, genotypes: IntArray) -> IntArray:
        """Return the most bytes alive at once in TensorFlow Lite Micro; see `nas.network.arena`.

        Returns:
            Of every row of genotypes, shape `(n,)`.
        """
        starts = range(0, len(genotypes), ROWS_AT_ONCE)
        parts = [genotypes[start : start + ROWS_AT_ONCE] for start in starts]
        runs = [self._traces(part, self._traces.state(self.input_shape)) for part in parts]
        sizes = aligned(self._state_values())
        peaks = [self._peak_values(run, self._arenas, sizes) for run in runs]
        return np.concatenate([np.zeros(0, np.int64), *peaks])

    def _state_values(self) -> IntArray:
        """Return the values of a tensor in every state that was met."""
        return np.array([0, *(math.prod(shape) for shape in self._traces.states[1:])], np.int64)

    def _peak_values(self, run: Interpretation, peaks: Cases, values: IntArray) -> IntArray:
        """Return the most values alive at once, shape `(n,)`.

        While a block runs, whatever later blocks still read is alive beside its own tensors.

        Args:
            run: What the blocks of every network are.
            peaks: Of a block, by its trace and what becomes of its inputs.
            values: Of a tensor, by its state.
        """
        networks = np.arange(run.outcomes.shape[1])
        last_reader = np.full_like(run.states, -1)
        for position, read in run.reads.items():
            last_reader[read, networks] = position
        last_reader[-1] = -1  # nobody reads what is not there
        last_reader[run.output, networks] = len(run.outcomes)
        sizes = values[run.states]
        held = sizes[0]
        peak: IntArray = held.copy()
        for position, read in run.reads.items():
            kept = last_reader[read, networks] > position
            # Of every input, the first one that is the same tensor.
            same = (read[:, None] == read).argmax(axis=1)
            size = np.where(same == np.arange(len(read))[:, None], sizes[read, networks], 0)
            others = held - size.sum(axis=0)
            inside = peaks.numbers([run.outcomes[position], *(2 * same + kept)])
            np.maximum(peak, others + inside, out=peak)
            output = sizes[position] * (last_reader[position] > position)
            held = others + (size * kept).sum(axis=0) + output
        return peak

    def _peak_of(self, case: tuple[int, ...], seen: Callable[[Trace], Trace]) -> int:
        """Return the most values alive in a block, by its trace and what becomes of its inputs.

        The trace is taken as `seen` returns it.
        """
        traced = self._traces.outcomes[case[0]]
        if traced is None:
            return 0
        trace = seen(traced)
        inputs = case[1 : 1 + len(trace.input_values)]
        return int(trace.peak_values([i % 2 > 0 for i in inputs], [i // 2 for i in inputs]))

    def interpreter(self, step: Step) -> Interpreter:
        """Return what goes through the blocks of many networks; see `Interpreter`."""
        return Interpreter(self.tables, step)


def _over(
    genes: Sequence[int], own: Sequence[int], numbers: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return numbers over the choices of the genes `own` with an axis for each of `genes`."""
    return numbers[tuple(slice(None) if gene in own else None for gene in genes)]


def _without_idle(
    genes: Sequence[int], numbers: npt.NDArray[np.int32]
) -> tuple[list[int], npt.NDArray[np.int32]]:
    """Return numbers over the choices of genes without the genes that they do not depend on."""
    axes = [i for i in range(numbers.ndim) if (numbers != numbers.take([0], axis=i)).any()]
    kept = numbers[tuple(slice(None) if i in axes else 0 for i in range(numbers.ndim))]
    return [genes[i] for i in axes], kept


def _trace_step(spec: ModuleSpec, shapes: Sequence[Shape]) -> tuple[Trace, Shape]:
    trace = trace_spec(spec.key, tuple(shapes))
    return trace, trace.output_shape


def trace_block(block: PlacedBlock) -> Trace:
    """Return what a placed block does to one image; equal blocks are traced once."""
    return trace_spec(ModuleSpec(block.module, block.arguments).key, block.input_shapes)


def label(module: type[nn.Module], arguments: Mapping[str, Any]) -> str:
    """Return a module and its arguments as one line."""
    return " ".join([module.__name__, *(f"{name}={value}" for name, value in arguments.items())])
