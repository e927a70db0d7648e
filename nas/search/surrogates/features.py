"""What a learned model sees of an architecture: its genes, or the live operations of its cells.

Everything comes from the space's own declarations. Of a space of cells, the operations that lie on
a path from input to output are described; what no path passes has no say in the accuracy, and a
model of few trainings cannot learn that by itself.

Genes are described together with the size of the network: its parameters and multiply-accumulates
are known without training and are correlated with the accuracy (two of the 13 proxies that
Krishnakumar et al., "NAS-Bench-Suite-Zero", NeurIPS 2022, compare). Beside the features of cells
they told nothing more on NAS-Bench-201, and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import GraphEncoding, SearchSpace

BoolArray = npt.NDArray[np.bool_]

INPUT, ABSENT = "input", ("", "none")
"""Labels of graph nodes: where something enters a cell, and where there is nothing."""

LEAST_NORM = 1e-3
"""Added to a squared path norm before its logarithm is taken: that of three poolings in a row."""

SIZES = ("params_m", "macs_m")
"""Costs that tell the size of a network; their logarithms are features."""

LEAST_SIZE = 1e-9
"""Millions from which a logarithm is taken, should a network have no parameters."""

SHOWN_SAMPLE = 16
"""Random genotypes by which it is decided which genes the graphs show."""

SPREAD_SAMPLE = 1024
"""Random genotypes from which the centre and the spread of every column are taken."""


@dataclass(frozen=True)
class Group:
    """Columns of features that belong together and share a length scale.

    Attributes:
        name: `genes`, `kinds`, `size`, `scores`, or of a cell `CELL.nodes`, `CELL.paths`,
            `CELL.windows`, `CELL.norm`.
        columns: Their positions.
    """

    name: str
    columns: slice

    @property
    def of_genes(self) -> bool:
        """Whether the effects of the columns add up for the most part: genes, sizes, scores."""
        return self.name in ("genes", "kinds", "size", "scores")


class Features:
    """Turns genotypes of one space into standardised columns.

    Columns that do not vary within a random sample of the space are left out. A group's columns
    are divided by the root of their number, so that the groups' distances are alike.
    """

    def __init__(self, space: SearchSpace) -> None:
        """Take the columns' centre and spread from a sample of `space`, always the same."""
        self._space = space
        self._cells = _cells(space)
        self._outside = _outside(space) if self._cells else []
        sample = space.samples(SPREAD_SAMPLE, np.random.default_rng(0))
        raw = self._raw(np.unique(sample, axis=0))
        self._kept = {name: columns.std(axis=0) > 1e-9 for name, columns in raw.items()}
        raw = {name: columns[:, self._kept[name]] for name, columns in raw.items()}
        self._kept = {name: kept for name, kept in self._kept.items() if kept.any()}
        raw = {name: raw[name] for name in self._kept}
        joined = np.hstack(list(raw.values())) if raw else np.zeros((1, 0))
        self._centre = joined.mean(axis=0)
        widths = [columns.shape[1] for columns in raw.values()]
        self._scale = joined.std(axis=0) * np.repeat(np.sqrt(widths), widths)
        ends = [0, *np.cumsum(widths).tolist()]
        self.groups = tuple(
            Group(name, slice(start, end))
            for name, (start, end) in zip(raw, pairwise(ends), strict=True)
        )

    def __call__(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        """Return the features, shape `(n, p)`."""
        if len(genotypes) == 0 or not self._kept:
            return np.zeros((len(genotypes), len(self._centre)))
        raw = self._raw(self._space.matrix(genotypes))
        kept = [raw[name][:, columns] for name, columns in self._kept.items()]
        features: FloatArray = (np.hstack(kept) - self._centre) / self._scale
        return features

    def _raw(self, genotypes: IntArray) -> dict[str, FloatArray]:
        """Return every group's columns before they are standardised."""
        if not self._cells:
            codes = gene_codes(self._space, genotypes)
            sizes = self._space.costs(genotypes)[list(SIZES)].to_numpy()
            size = np.log(np.maximum(sizes, LEAST_SIZE))
            kinds = _by_kind(self._space, codes)
            return {"genes": np.hstack(codes), "kinds": kinds, "size": size}
        raw: dict[str, FloatArray] = {}
        if self._outside:
            codes = gene_codes(self._space, genotypes)
            raw["genes"] = np.hstack([codes[i] for i in self._outside])
        encoding = self._space.encode_graphs(genotypes)
        for name, nodes in self._cells.items():
            cell = GraphEncoding(encoding.operations[:, nodes], encoding.adjacency[:, nodes, nodes])
            raw |= {f"{name}.{k}": v for k, v in cell_columns(self._space, cell).items()}
        return raw


def gene_codes(space: SearchSpace, genotypes: IntArray) -> list[FloatArray]:
    """Return one array a gene: one-hot, or a thermometer code where choices are ordered.

    In a thermometer code column `j` says whether choice `j` or a later one is taken, so that
    neighbouring choices are near each other. All is 0 where the gene is inactive.
    """
    ends = np.cumsum(space.cardinalities)[:-1]
    return [
        code[:, ::-1].cumsum(axis=1)[:, ::-1] if gene.ordinal else code
        for gene, code in zip(
            space.genes, np.split(space.one_hot(genotypes), ends, axis=1), strict=True
        )
    ]


def _by_kind(space: SearchSpace, codes: Sequence[FloatArray]) -> FloatArray:
    """Add up the codes of genes that choose the same thing in different places of a network.

    The space's declaration tells: the kernel sizes of two blocks of one module are of one kind.
    """
    kinds: dict[tuple[frozenset[str], int, bool], FloatArray] = {}
    for gene, role, code in zip(space.genes, space.roles, codes, strict=True):
        kind = role, code.shape[1], gene.ordinal
        kinds[kind] = kinds.get(kind, np.zeros_like(code)) + code
    return np.hstack(list(kinds.values()))


def _cells(space: SearchSpace) -> dict[str, slice]:
    """Return where the nodes of every cell stand in the encoding; empty without cells."""
    if type(space).graphs is SearchSpace.graphs:  # the graph of all blocks, which genes describe
        return {}
    graphs = space.graphs([0] * len(space.genes))
    ends = [0, *np.cumsum([len(graph.operations) for graph in graphs.values()]).tolist()]
    return {name: slice(a, b) for name, (a, b) in zip(graphs, pairwise(ends), strict=True)}


def _outside(space: SearchSpace) -> list[int]:
    """Return the genes that the graphs do not show, such as the number of cells."""
    sample = space.samples(SHOWN_SAMPLE, np.random.default_rng(0))
    shown = space.encode_graphs(sample)
    outside = []
    for i, choices in enumerate(space.cardinalities):
        changed = sample.copy()
        changed[:, i] = (changed[:, i] + 1) % choices
        graphs = space.encode_graphs(changed)
        same = np.array_equal(graphs.operations, shown.operations)
        if same and np.array_equal(graphs.adjacency, shown.adjacency):
            outside.append(i)
    return outside


def cell_columns(space: SearchSpace, cell: GraphEncoding) -> dict[str, FloatArray]:
    """Describe the live part of a cell.

    Args:
        space: Whose operations the nodes have.
        cell: Nodes in an order in which they run, the last one the output.

    Returns:
        `nodes`: every node's live operation, one-hot.
        `paths`: see `path_columns`.
        `windows`: how often each sequence of one, two or three operations occurs along paths.
        `norm`: see `path_norm`.
    """
    live = live_nodes(space, cell)
    operations = cell.operations[:, :, None] == np.arange(len(space.operations))
    one_hot = (operations & live[:, :, None]).astype(float)
    edges = (cell.adjacency & live[:, :, None] & live[:, None, :]).astype(float)
    return {
        "nodes": one_hot.reshape(len(live), -1),
        "paths": path_columns(space, cell, one_hot, edges),
        "windows": _windows(one_hot, edges),
        "norm": path_norm(space, one_hot, edges),
    }


def live_nodes(space: SearchSpace, cell: GraphEncoding) -> BoolArray:
    """Return which nodes lie on a path from an input to the last node, shape `(n, m)`."""
    labels = np.array(space.operations)
    there = ~np.isin(labels, ABSENT)[cell.operations]
    reached = there & (labels == INPUT)[cell.operations]
    for node in range(1, there.shape[1]):
        entered = (reached & cell.adjacency[:, :, node]).any(axis=1)
        reached[:, node] |= there[:, node] & entered
    read = np.zeros_like(there)
    read[:, -1] = there[:, -1]
    for node in range(there.shape[1] - 2, -1, -1):
        read[:, node] = there[:, node] & (read & cell.adjacency[:, node, :]).any(axis=1)
    live: BoolArray = reached & read
    return live


def path_columns(
    space: SearchSpace, cell: GraphEncoding, one_hot: FloatArray, edges: FloatArray
) -> FloatArray:
    """Describe the paths from the inputs of a cell to its output.

    Returns:
        For every operation: on how many paths its nodes lie (logarithm), how many nodes have it,
        and how many of them the path with the most and that with the fewest has. At last how many
        paths there are (logarithm).
    """
    n, m, q = one_hot.shape
    entry = (np.array(space.operations) == INPUT)[cell.operations] & one_hot.any(axis=2)
    before, after = entry.astype(float), np.zeros((n, m))
    after[:, -1] = one_hot[:, -1].any(axis=1)
    most = np.where(entry[..., None], 0.0, -np.inf).repeat(q, axis=2)
    fewest = -most
    for node in range(1, m):
        before[:, node] += (before * edges[:, :, node]).sum(axis=1)
        along = edges[:, :, node, None] > 0
        most[:, node] = np.maximum(most[:, node], np.where(along, most, -np.inf).max(axis=1))
        fewest[:, node] = np.minimum(fewest[:, node], np.where(along, fewest, np.inf).min(axis=1))
        most[:, node] += one_hot[:, node]
        fewest[:, node] += one_hot[:, node]
    for node in range(m - 2, -1, -1):
        after[:, node] = (after * edges[:, node, :]).sum(axis=1)
    through = np.log1p(((before * after)[..., None] * one_hot).sum(axis=1))
    ends = [np.where(np.isfinite(end[:, -1]), end[:, -1], 0.0) for end in (most, fewest)]
    return np.hstack([through, one_hot.sum(axis=1), *ends, np.log1p(before[:, -1:])])


def path_norm(space: SearchSpace, one_hot: FloatArray, edges: FloatArray) -> FloatArray:
    """Return the logarithm of the path norm that a cell is initialised with, shape `(n, 1)`.

    The squared norm adds up, over all paths of weights, the products of their squares (Neyshabur,
    Salakhutdinov and Srebro, "Path-SGD", NeurIPS 2015). Its expectation is a sum over the paths of
    operations, of the products of `space.gains`, squared. Synaptic flow (Tanaka et al., NeurIPS
    2020) is the same sum of absolute values, measured on a network.
    """
    squared = np.array([space.gains.get(name, 1.0) ** 2 for name in space.operations])
    gains = one_hot @ squared
    norm = one_hot[:, :, space.operations.index(INPUT)].copy()
    for node in range(1, norm.shape[1]):
        norm[:, node] += gains[:, node] * (norm * edges[:, :, node]).sum(axis=1)
    return np.log(norm[:, -1:] + LEAST_NORM)


def _windows(one_hot: FloatArray, edges: FloatArray) -> FloatArray:
    """Count sequences of up to three operations that follow each other, shape `(n, ...)`."""
    n, _, q = one_hot.shape
    backward = one_hot.transpose(0, 2, 1)
    entering = backward @ edges
    counts = [one_hot.sum(axis=1), (entering @ one_hot).reshape(n, -1)]
    for middle in range(q):
        passed = entering * one_hot[:, None, :, middle]
        counts.append((passed @ edges @ one_hot).reshape(n, -1))
    return np.hstack(counts)
