"""Where the nodes of a graph stand when it is drawn."""

from __future__ import annotations

from nas.core.space import Graph

SWEEPS = 8


def without_empty(graph: Graph) -> Graph:
    """Return a graph without the nodes that a genotype leaves empty."""
    kept = [i for i, operation in enumerate(graph.operations) if operation]
    place = {old: new for new, old in enumerate(kept)}
    edges = tuple((place[i], place[j]) for i, j in graph.edges if i in place and j in place)
    return Graph(tuple(graph.operations[i] for i in kept), edges)


def is_chain(graph: Graph) -> bool:
    """Return whether every node reads the one before, and nothing else."""
    return sorted(graph.edges) == [(i, i + 1) for i in range(len(graph.operations) - 1)]


def layers(graph: Graph) -> list[list[int]]:
    """Return nodes by the length of the longest way to them, each layer in an order to draw."""
    depth = [0] * len(graph.operations)
    for i, j in sorted(graph.edges):
        depth[j] = max(depth[j], depth[i] + 1)
    found: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for node, level in enumerate(depth):
        found[level].append(node)
    # Sugiyama's heuristic: a node stands at the mean height of its neighbours.
    height = {node: float(i) for layer in found for i, node in enumerate(layer)}
    neighbours: dict[int, list[int]] = {node: [] for node in height}
    for i, j in graph.edges:
        neighbours[i].append(j)
        neighbours[j].append(i)
    for _ in range(SWEEPS):
        for layer in found:
            mean = {
                n: sum(height[m] for m in neighbours[n]) / max(len(neighbours[n]), 1) for n in layer
            }
            layer.sort(key=lambda node: (mean[node], node))
            height |= {node: i - (len(layer) - 1) / 2 for i, node in enumerate(layer)}
    return found


def node_positions(graph: Graph) -> list[tuple[float, float]]:
    """Return where the nodes stand, x to the right and y upwards, one apart.

    A chain goes from top to bottom, any other graph from left to right.
    """
    if is_chain(graph):
        return [(0.0, -float(node)) for node in range(len(graph.operations))]
    places = {
        node: (float(x), (len(layer) - 1) / 2 - i)
        for x, layer in enumerate(layers(graph))
        for i, node in enumerate(layer)
    }
    return [places[node] for node in range(len(places))]
