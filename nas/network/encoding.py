"""Graphs of architectures as arrays, for learned models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nas.network.blocks import IntArray
    from nas.network.space import SearchSpace


@dataclass(frozen=True)
class GraphEncoding:
    """Graphs of `n` architectures with `m` nodes each; the cells of one stand side by side.

    Attributes:
        operations: Position of every node's operation in `space.operations`, shape `(n, m)`.
        adjacency: Whether node `j` reads node `i`, at `[:, i, j]`, shape `(n, m, m)`.
    """

    operations: IntArray
    adjacency: npt.NDArray[np.bool_]


def encode(space: SearchSpace, genotypes: IntArray) -> GraphEncoding:
    """Encode checked genotypes, shape `(n, g)`."""
    known = {operation: i for i, operation in enumerate(space.operations)}
    rows, matrices = [], []
    for genotype in genotypes.tolist():
        labels: list[int] = []
        edges: list[tuple[int, int]] = []
        for graph in space.graphs(genotype).values():
            edges += [(i + len(labels), j + len(labels)) for i, j in graph.edges]
            labels += [known[operation] for operation in graph.operations]
        adjacency = np.zeros((len(labels), len(labels)), bool)
        adjacency[tuple(np.array(edges, int).reshape(-1, 2).T)] = True
        rows.append(labels)
        matrices.append(adjacency)
    return GraphEncoding(np.array(rows, np.int64), np.array(matrices, bool))
