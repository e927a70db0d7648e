"""The cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020), joined to its published table.

A cell has four nodes; each of its six edges carries one of five operations, and a node is the sum
of the edges that enter it. The network repeats one cell: a convolution, three stages of five cells
with a residual block of stride 2 between stages, and a classifier.

Of the 15,625 genotypes many stand for one network. `canonicalise` merges those that are provably
the same computation with the same parameters: nodes renamed, pooling and skips that no output
depends on, edges that start at equal nodes. That leaves 8,265. By the paper's rule, which takes
the output's expression alone and so also merges networks of different size, 6,466 remain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn import functional as F

from nas.core.errors import ConfigError, GenotypeError
from nas.core.space import Gene, Genotype, Graph, Preset
from nas.network.blocks import Block, Choices, IntArray, ModuleSpec
from nas.network.module import Dropout, DropPath
from nas.network.space import SearchSpace
from nas.tables.nasbench201 import load_nasbench201
from search_spaces import register
from search_spaces.layers.cells import Node, ReLUConvNorm, Zeros, gain

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Target and source of every edge, in the order of the genes; node 0 is the cell's input."""

NONE, SKIP, POOL = (OPERATIONS.index(name) for name in ("none", "skip_connect", "avg_pool_3x3"))


class NasBench201Stem(nn.Module):
    """A convolution and its normalisation."""

    def __init__(self, input_shape: Sequence[int], channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to `(N, channels, H, W)`."""
        stem: torch.Tensor = self.norm(self.conv(x))
        return stem


class ResidualReduction(nn.Module):
    """A residual block that halves the resolution and doubles the channels."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__()
        inputs, outputs = input_shape[0], 2 * input_shape[0]
        self.body = nn.Sequential(
            ReLUConvNorm(inputs, outputs, 3, stride=2), ReLUConvNorm(outputs, outputs, 3)
        )
        # Odd sizes are rounded up as the convolution's are.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False)
        )
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, 2 C, H / 2, W / 2)`."""
        reduced: torch.Tensor = self.drop_path(self.body(x)) + self.shortcut(x)
        return reduced


class NasBench201Classifier(nn.Module):
    """Normalisation, ReLU, global average pooling and a linear layer."""

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(input_shape[0])
        self.act = nn.ReLU()
        self.dropout = Dropout()
        self.linear = nn.Linear(input_shape[0], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to logits `(N, num_classes)`."""
        x = F.adaptive_avg_pool2d(self.act(self.norm(x)), 1).flatten(1)
        logits: torch.Tensor = self.linear(self.dropout(x))
        return logits


@register("nasbench201")
@dataclass(frozen=True, kw_only=True)
class NasBench201Space(SearchSpace):
    """Six edges with one of five operations each.

    Attributes:
        channels: Of the first stage; the benchmark has 16.
        cells_per_stage: The benchmark has 5.
        merge_equal: Whether genotypes that are provably one network count as one. The benchmark
            has trained all of them apart, and fronts and figures that are published of it are of
            15,625 architectures: without, the space is these.
    """

    supernet: ClassVar[str] = "fair"

    channels: int = 16
    cells_per_stage: int = 5
    merge_equal: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("channels", "cells_per_stage"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search_space.{name}", getattr(self, name), "1 or more")

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The operation of every edge, in the order of the published table."""
        return tuple(Gene(_edge(*edge), OPERATIONS, ordinal=False) for edge in EDGES)

    def blocks(self) -> Iterator[Block]:
        """Stem, three stages of cells of three nodes each, classifier."""
        stem = ModuleSpec(NasBench201Stem, {"channels": self.channels})
        yield Block("stem", lambda _: stem)
        before = "stem"
        reduction = ModuleSpec(ResidualReduction)
        for stage in range(1, 4):
            if stage > 1:
                before = f"reduction{stage - 1}"
                yield Block(before, lambda _: reduction)
            for cell in range(1, self.cells_per_stage + 1):
                names = [before, *(f"stage{stage}_cell{cell}_node{i}" for i in (1, 2, 3))]
                for node in (1, 2, 3):
                    yield Block(names[node], partial(_node, node, names))
                before = names[3]
        classifier = ModuleSpec(NasBench201Classifier, {"num_classes": self.num_classes})
        yield Block("classifier", lambda _: classifier)

    def canonicalise(self, genotypes: IntArray) -> IntArray:
        """Return the first genotype that is the same network; see the module's text."""
        if not self.merge_equal:
            return genotypes
        every, first = _folded()
        return every[first[_number(genotypes)]]

    @property
    def size(self) -> int:
        """Number of canonical genotypes."""
        if not self.merge_equal:
            return len(_folded()[0])
        return len(np.unique(_folded()[1]))

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """The three data sets of the benchmark."""
        source = "NAS-Bench-201, ICLR 2020, section 2.1: 15,625 cells, 6,466 unique"
        shapes = {
            "cifar10": ([3, 32, 32], 10),
            "cifar100": ([3, 32, 32], 100),
            "imagenet16": ([3, 16, 16], 120),
        }
        return tuple(
            Preset(name, {"input_shape": shape, "num_classes": n}, "6,466 of 15,625", source)
            for name, (shape, n) in shapes.items()
        )

    def references(self) -> dict[str, Genotype]:
        """The cells that are best on validation images after 12 epochs, and a residual one."""
        best = {
            f"best_{name}": int(load_nasbench201()[f"acc12_{name}_valid"].argmax())
            for name in ("cifar10", "cifar100", "imagenet16")
        }
        found = {name: self.canonical(load_nasbench201()["ops"][i]) for name, i in best.items()}
        residual = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
        return {**found, "residual": self.canonical(parse(residual))}

    def graphs(self, genotype: Sequence[int]) -> dict[str, Graph]:
        """The cell, with operations on nodes."""
        chosen = self.canonical(genotype)
        operations = ("input", *(OPERATIONS[i] for i in chosen), "output")
        edges = []
        for i, (target, source) in enumerate(EDGES, 1):
            edges += [(j, i) for j, (end, _) in enumerate(EDGES, 1) if end == source]
            edges += [(0, i)] if source == 0 else []
            edges += [(i, len(EDGES) + 1)] if target == 3 else []
        return {"cell": Graph(operations, tuple(edges))}

    @property
    def operations(self) -> tuple[str, ...]:
        """Every operation that occurs in `graphs`."""
        return ("", "input", *OPERATIONS, "output")

    @property
    def gains(self) -> dict[str, float]:
        """Those of the operations with the channels of the first stage."""
        return {name: gain(name, self.channels) for name in OPERATIONS if name != "none"}


def _edge(target: int, source: int) -> str:
    return f"edge{target}_{source}"


def _node(node: int, names: Sequence[str], chosen: Choices) -> ModuleSpec | str | None:
    """Return what computes one node of a cell whose nodes have these names."""
    operations: dict[int, str] = {j: chosen[_edge(node, j)] for j in range(node)}
    entering = {source: name for source, name in operations.items() if name != "none"}
    if list(entering.values()) == ["skip_connect"]:
        return names[next(iter(entering))]
    if entering:
        inputs = tuple(names[source] for source in entering)
        return ModuleSpec(Node, {"operations": list(entering.values())}, inputs)
    # The canonical form has no pooling and no skip of zeros, so only a convolution reads them.
    readers = [chosen[_edge(target, node)] for target in range(node + 1, 4)]
    if node == 3 or any(name != "none" for name in readers):
        return ModuleSpec(Zeros, inputs=(names[0],))
    return None


def parse(text: str) -> Genotype:
    """Return the genotype that the benchmark writes as `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        GenotypeError: The text is of another form, or an operation is not known.
    """
    nodes = [part.strip("|").split("|") for part in text.split("+")]
    edges = [(edge, (i, j)) for i, node in enumerate(nodes, 1) for j, edge in enumerate(node)]
    if tuple(place for _, place in edges) != EDGES:
        raise GenotypeError(f"cell: got {text!r}, expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    genotype = []
    for edge, (target, source) in edges:
        name, _, origin = edge.partition("~")
        if name not in OPERATIONS or origin != str(source):
            expected = f"one of {', '.join(OPERATIONS)}, then ~{source}"
            raise GenotypeError(f"gene {_edge(target, source)}: got {edge!r}, expected {expected}")
        genotype.append(OPERATIONS.index(name))
    return tuple(genotype)


def to_text(genotype: Sequence[int]) -> str:
    """Return a genotype as the benchmark writes it; the inverse of `parse`."""
    edges = [f"{OPERATIONS[i]}~{j}" for i, (_, j) in zip(genotype, EDGES, strict=True)]
    return "+".join(f"|{'|'.join(node)}|" for node in (edges[:1], edges[1:3], edges[3:]))


def _number(genotypes: IntArray) -> IntArray:
    return np.asarray(genotypes @ len(OPERATIONS) ** np.arange(len(EDGES))[::-1], np.int64)


@lru_cache(maxsize=1)
def _folded() -> tuple[IntArray, IntArray]:
    """Return every genotype, and for each the number of the first that is the same network."""
    every = np.indices((len(OPERATIONS),) * len(EDGES)).reshape(len(EDGES), -1).T
    numbers = np.arange(len(every))
    pairs = [(numbers, _number(moved)) for moved in _moves(every)]
    rows, columns = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(every),) * 2)
    _, labels = connected_components(graph, directed=False)
    first = np.full(labels.max() + 1, len(every))
    np.minimum.at(first, labels, numbers)
    return every, first[labels]


def _moves(every: IntArray) -> Iterator[IntArray]:
    """Yield all genotypes after a change that keeps the computation and the parameters.

    Where a change does not apply, the genotype stays. Columns are edges 1<-0, 2<-0, 2<-1, 3<-0,
    3<-1, 3<-2, called a to f.
    """
    a, b, c, _, e, f = every.T
    free = (every == SKIP) | (every == POOL)
    first_zero = a == NONE
    second_zero = (b == NONE) & ((c == NONE) | (first_zero & free[:, 2]))
    second_unused = f == NONE
    first_unused = (e == NONE) & ((c == NONE) | second_unused)
    # Without parameters, and on zeros or for nobody: as if it were not there.
    for column, idle in (
        (0, first_unused),
        (1, second_unused),
        (2, first_zero | second_unused),
        (4, first_zero),
        (5, second_zero),
    ):
        moved = every.copy()
        moved[idle & free[:, column], column] = NONE
        yield moved
    second_is_input = (b == SKIP) & ((c == NONE) | (first_zero & free[:, 2]))
    second_is_first = (b == NONE) & (c == SKIP)
    for applies, order in (
        # The inner nodes can be renamed where neither reads the other.
        (c == NONE, (1, 0, 2, 3, 5, 4)),
        # Edges that start at equal nodes and end at the same one can be exchanged.
        (a == SKIP, (0, 2, 1, 3, 4, 5)),
        (a == SKIP, (0, 1, 2, 4, 3, 5)),
        (second_is_input, (0, 1, 2, 5, 4, 3)),
        (second_is_first, (0, 1, 2, 3, 5, 4)),
        (first_zero & second_zero, (0, 1, 2, 3, 5, 4)),
        # So can edges to nodes that nobody reads.
        (second_unused, (0, 2, 1, 3, 4, 5)),
        (second_unused & (e == NONE), (1, 0, 2, 3, 4, 5)),
    ):
        yield np.where(applies[:, None], every[:, order], every)
