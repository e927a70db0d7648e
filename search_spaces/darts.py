"""The cell space of DARTS (Liu, Simonyan and Yang, ICLR 2019).

A network stacks a normal and a reduction cell. A cell has four nodes; each adds two operations on
two different earlier states, which are the outputs of the two cells before and the nodes before.
The cell's output concatenates the nodes. Two of the cells, at one and two thirds of the depth,
halve the resolution and double the channels.

The two inputs of a node are one gene, an unordered pair, so their order cannot make two genotypes
of one network. Which of several independent nodes comes first is told apart, as it is in the
paper's count of about 10^18.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import numpy as np

from nas.core.errors import ConfigError
from nas.core.measurement import FP32
from nas.core.space import Gene, Genotype, Graph, Preset
from nas.network.blocks import Block, Choices, IntArray, ModuleSpec
from nas.network.mixed_precision import MixedPrecisionSpace
from search_spaces import register
from search_spaces.layers.cells import Node, Zeros, gain
from search_spaces.layers.darts import (
    AuxiliaryClassifier,
    Concatenation,
    DartsClassifier,
    DartsStem,
    Fitted,
)

NONE = "none"
OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The paper's operations but `none`, which its search has and its architectures have not."""

NODES = 4
CELLS = ("normal", "reduction")
LARGE = 96
"""From so many pixels on, images are reduced eightfold before the first cell."""


STAGES = ("stage1", "stage2", "stage3")
"""Cells between two reductions of the resolution, the first of which begins the stage."""


@dataclass(frozen=True)
class _Place:
    """Where a cell stands.

    Attributes:
        name: Prefix of its blocks.
        stage: 0, 1 or 2; a reduction cell belongs to the stage that it begins.
        index: Position among the normal cells of its stage; `None` for a reduction cell.
    """

    name: str
    stage: int
    index: int | None

    @property
    def kind(self) -> str:
        return CELLS[self.index is None]


@register("darts")
@dataclass(frozen=True, kw_only=True)
class DartsSpace(MixedPrecisionSpace):
    """A normal and a reduction cell, the number of cells and of channels.

    Attributes:
        channels: Choices for the channels of the first cells' nodes; empty for a range that goes
            from quickly trained networks to the paper's.
        cells_per_stage: Choices for the normal cells of each of three stages; a network of `n` a
            stage has `3 n + 2` cells. Empty as above.
        operations: Choices for every edge; `none` may be among them.
    """

    supernet: ClassVar[str] = "fair"

    channels: tuple[int, ...] = ()
    cells_per_stage: tuple[int, ...] = ()
    operations_per_edge: tuple[str, ...] = OPERATIONS

    def __post_init__(self) -> None:
        """Check the settings and fill in those that depend on the images."""
        super().__post_init__()
        defaults = {
            "channels": (16, 32, 48) if self._large else (8, 16, 36),
            "cells_per_stage": (1, 2, 4) if self._large else (1, 2, 6),
        }
        for name, default in defaults.items():
            choices = tuple(getattr(self, name)) or default
            object.__setattr__(self, name, tuple(sorted(choices)))
            if len(set(choices)) < len(choices) or min(choices) < 1:
                expected = "distinct positive choices"
                raise ConfigError(f"search_space.{name}", list(choices), expected)
        choices = tuple(self.operations_per_edge)
        object.__setattr__(self, "operations_per_edge", choices)
        known = {NONE, *OPERATIONS}
        if not choices or len(set(choices)) < len(choices) or not known.issuperset(choices):
            expected = f"distinct operations of {', '.join(sorted(known))}"
            raise ConfigError("search_space.operations_per_edge", list(choices), expected)

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Channels and cells; for each cell, every node's inputs and two operations; precisions."""
        genes = [Gene("channels", self.channels), Gene("cells_per_stage", self.cells_per_stage)]
        for cell in CELLS:
            for node in range(1, NODES + 1):
                if node > 1:
                    genes.append(Gene(f"{cell}.node{node}.inputs", pairs(node), ordinal=False))
                for edge in ("first", "second"):
                    name = f"{cell}.node{node}.{edge}"
                    genes.append(Gene(name, self.operations_per_edge, ordinal=False))
        return (*genes, *(gene for stage in STAGES for gene in self.precision_genes(stage)))

    def blocks(self) -> Iterator[Block]:
        """Stem, cells, classifier; the auxiliary one reads the second reduction."""
        yield Block("stem", self._stem)
        if self._large:
            yield Block("stem2", self._stem2)
        for place in self._places(max(self.cells_per_stage)):
            for source in (0, 1):
                yield Block(f"{place.name}_input{source}", partial(self._input, place, source))
            for node in range(1, NODES + 1):
                yield Block(f"{place.name}_node{node}", partial(self._node, place, node))
            yield Block(f"{place.name}_output", partial(self._output, place))
        classes = {"num_classes": self.num_classes}
        auxiliary = ModuleSpec(AuxiliaryClassifier, classes, ("reduction2_output",))
        yield Block("auxiliary", lambda _: auxiliary, auxiliary=True)
        yield Block("classifier", lambda _: ModuleSpec(DartsClassifier, classes))

    @property
    def _large(self) -> bool:
        return min(self.input_shape[1:]) >= LARGE

    def _stem(self, chosen: Choices) -> ModuleSpec:
        channels = chosen["channels"]
        outputs = [channels // 2, channels] if self._large else [3 * channels]
        stride = 2 if self._large else 1
        return ModuleSpec(DartsStem, {"outputs": outputs, "stride": stride, "activated": False})

    def _stem2(self, chosen: Choices) -> ModuleSpec:
        return ModuleSpec(
            DartsStem, {"outputs": [chosen["channels"]], "stride": 2, "activated": True}
        )

    @staticmethod
    @cache
    def _places(cells_per_stage: int) -> tuple[_Place, ...]:
        """Return the cells of a network, in order."""
        places = []
        for stage in range(3):
            if stage:
                places.append(_Place(f"reduction{stage}", stage, None))
            indices = range(1, cells_per_stage + 1)
            places += [_Place(f"stage{stage + 1}_cell{i}", stage, i) for i in indices]
        return tuple(places)

    def _before(self, place: _Place, chosen: Choices) -> Sequence[_Place] | None:
        """Return the cells before a place, or `None` if the network has no cell there."""
        count = chosen["cells_per_stage"]
        if place.index is not None and place.index > count:
            return None
        places = self._places(count)
        return places[: places.index(place)]

    def _input(self, place: _Place, source: int, chosen: Choices) -> ModuleSpec | None:
        before = self._before(place, chosen)
        if before is None:
            return None
        stems = ["stem", "stem2" if self._large else "stem"]
        read = [*stems, *(f"{cell.name}_output" for cell in before)][source - 2]
        # The cell before the last one has twice the resolution where the last one reduced it.
        reduced = before[-1].kind == "reduction" if before else self._large
        outputs = chosen["channels"] * 2**place.stage
        arguments = {"outputs": outputs, "reduce": reduced and source == 0}
        precision = self.in_precision(STAGES[place.stage], chosen)
        return ModuleSpec(Fitted, arguments | precision, (read,))

    def _node(self, place: _Place, node: int, chosen: Choices) -> ModuleSpec | str | None:
        if self._before(place, chosen) is None:
            return None
        gene = f"{place.kind}.node{node}"
        inputs = chosen[f"{gene}.inputs"] if node > 1 else pairs(1)[0]
        operations = [chosen[f"{gene}.first"], chosen[f"{gene}.second"]]
        edges = [
            (f"{place.name}_{_STATES[state]}", operation, _stride(place.kind, state))
            for state, operation in zip(inputs.split("+"), operations, strict=True)
            if operation != NONE
        ]
        if not edges:
            stride = _stride(place.kind, "c1")
            return ModuleSpec(Zeros, {"stride": stride}, (f"{place.name}_input1",))
        names, used, strides = (list(part) for part in zip(*edges, strict=True))
        if used == ["skip_connect"] and strides == [1]:
            return str(names[0])
        arguments = {"operations": used, "strides": strides}
        if any("conv" in operation for operation in used):
            arguments |= self.in_precision(STAGES[place.stage], chosen)
        return ModuleSpec(Node, arguments, tuple(names))

    def _output(self, place: _Place, chosen: Choices) -> ModuleSpec | None:
        if self._before(place, chosen) is None:
            return None
        nodes = tuple(f"{place.name}_node{node}" for node in range(1, NODES + 1))
        return ModuleSpec(Concatenation, inputs=nodes)

    def canonicalise(self, genotypes: IntArray) -> IntArray:
        """Fold the inputs of edges that are `none`; without these every genotype is canonical."""
        folded = genotypes.copy()
        if NONE not in self.operations_per_edge:
            return folded
        names = [gene.name for gene in self.genes]
        for cell, node in itertools.product(CELLS, range(1, NODES + 1)):
            first = names.index(f"{cell}.node{node}.first")
            columns = [first - 1, first, first + 1] if node > 1 else [first, first + 1]
            table = _folded_nodes(node, self.operations_per_edge)
            picked = (
                folded[:, columns] if node > 1 else np.pad(folded[:, columns], ((0, 0), (1, 0)))
            )
            canonical = table[tuple(picked.T)]
            folded[:, columns] = canonical if node > 1 else canonical[:, 1:]
        return folded

    @property
    def size(self) -> int:
        """Number of canonical genotypes."""
        nodes = (_folded_nodes(n, self.operations_per_edge) for n in range(1, NODES + 1))
        cell = math.prod(len(np.unique(table.reshape(-1, 3), axis=0)) for table in nodes)
        cells: int = cell ** len(CELLS)
        precisions = len(self.precisions) ** len(STAGES)
        return int(len(self.channels) * len(self.cells_per_stage) * cells * precisions)

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """The paper's networks for CIFAR-10 and ImageNet, and one that trains quickly."""
        source = "DARTS, ICLR 2019, section 3.1 and appendix A.1"
        cifar = {"input_shape": [3, 32, 32], "num_classes": 10}
        imagenet = {"input_shape": [3, 224, 224], "num_classes": 1000}
        return (
            Preset(
                "cifar10",
                {**cifar, "channels": [36], "cells_per_stage": [6]},
                "about 10^18",
                source,
            ),
            Preset("small", cifar),
            Preset(
                "imagenet",
                {**imagenet, "channels": [48], "cells_per_stage": [4]},
                "about 10^18",
                source,
            ),
        )

    def references(self) -> dict[str, Genotype]:
        """The cells that were published, at the size at which CIFAR-10 was learned in full."""
        values = {"channels": 36, "cells_per_stage": 6}
        if self._large:
            return {}
        found = {}
        for name, published in PUBLISHED.items():
            chosen: dict[str, int | str] = {**values, **_choices(published)}
            named = [(gene, chosen.get(gene.name, FP32)) for gene in self.genes]
            if all(value in gene.choices for gene, value in named):
                found[name] = self.canonical([gene.choices.index(value) for gene, value in named])
        return found

    def graphs(self, genotype: Sequence[int]) -> dict[str, Graph]:
        """Both cells, with operations on nodes."""
        chosen = dict(zip((g.name for g in self.genes), self.canonical(genotype), strict=True))
        return {cell: self._graph(cell, chosen) for cell in CELLS}

    def _graph(self, cell: str, chosen: Mapping[str, int]) -> Graph:
        operations, edges = ["input", "input"], []
        states = {"c0": 0, "c1": 1}
        for node in range(1, NODES + 1):
            gene = f"{cell}.node{node}"
            pair = pairs(node)[chosen.get(f"{gene}.inputs", 0)].split("+")
            names = [self.operations_per_edge[chosen[f"{gene}.{e}"]] for e in ("first", "second")]
            total = len(operations) + 2
            for state, name in zip(pair, names, strict=True):
                edges += [(states[state], len(operations)), (len(operations), total)]
                operations.append(name)
            operations.append("add")
            states[f"n{node}"] = total
        edges += [(states[f"n{node}"], len(operations)) for node in range(1, NODES + 1)]
        return Graph((*operations, "concatenation"), tuple(edges))

    @property
    def operations(self) -> tuple[str, ...]:
        """Every operation that occurs in `graphs`."""
        return ("", "input", *self.operations_per_edge, "add", "concatenation")

    @property
    def gains(self) -> dict[str, float]:
        """Those of the operations with the fewest channels."""
        names = set(self.operations_per_edge) - {NONE}
        return {name: gain(name, self.channels[0]) for name in sorted(names)}


_STATES = {"c0": "input0", "c1": "input1", **{f"n{i}": f"node{i}" for i in range(1, NODES + 1)}}
"""A cell's blocks by the state that they compute: outputs of the two cells before, and nodes."""


def _stride(cell: str, state: str) -> int:
    return 2 if cell == "reduction" and state in ("c0", "c1") else 1


@cache
def pairs(node: int) -> tuple[str, ...]:
    """Return the pairs of states that node `node` (from 1) may read, such as `c0+n1`."""
    states = list(_STATES)[: node + 1]
    return tuple("+".join(pair) for pair in itertools.combinations(states, 2))


@cache
def _folded_nodes(node: int, operations: tuple[str, ...]) -> IntArray:
    """Return the canonical form of every choice of a node, shape `(pairs, ops, ops, 3)`."""
    choices = [pair.split("+") for pair in pairs(node)]
    every = np.indices((len(choices), len(operations), len(operations)))
    table = np.moveaxis(every, 0, -1).copy()
    first: dict[frozenset[tuple[str, int]], IntArray] = {}
    for place in np.ndindex(*table.shape[:-1]):
        ends = zip(choices[place[0]], place[1:], strict=True)
        key = frozenset((state, i) for state, i in ends if operations[i] != NONE)
        table[place] = first.setdefault(key, table[place].copy())
    return table


_Cell = tuple[tuple[str, int], ...]

PUBLISHED: dict[str, tuple[_Cell, _Cell]] = {
    "darts_v1": (
        (
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
            ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2),
        ),
        (
            ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0),
        ),
    ),
    "darts_v2": (
        (
            ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
        ),
        (
            ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
        ),
    ),
    "pc_darts": (
        (
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
            ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1),
        ),
        (
            ("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2),
            ("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2),
        ),
    ),
}  # fmt: skip
"""Normal and reduction cells: two edges a node, each an operation and the state that it reads.

From quark0/darts, cnn/genotypes.py (DARTS_V1, DARTS_V2), and yuhuixu1993/PC-DARTS, genotypes.py
(PC_DARTS_cifar).
"""


def _choices(published: tuple[_Cell, _Cell]) -> dict[str, str]:
    """Return the choices of all nodes by the names of genes."""
    chosen = {}
    states = list(_STATES)
    for cell, edges in zip(CELLS, published, strict=True):
        for node in range(1, NODES + 1):
            ends = sorted(edges[2 * node - 2 : 2 * node], key=lambda edge: edge[1])
            if node > 1:
                chosen[f"{cell}.node{node}.inputs"] = "+".join(states[i] for _, i in ends)
            for edge, (operation, _) in zip(("first", "second"), ends, strict=True):
                chosen[f"{cell}.node{node}.{edge}"] = operation
    return chosen
