"""Pictures of architectures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from nas.core.space import Graph
from nas.results.layout import is_chain, layers, node_positions, without_empty
from nas.results.pictures import write_picture

DPI = 120
LAYER_INCHES, NODE_INCHES, BLOCK_INCHES = 1.9, 0.55, 0.34
_COLOURS = ("#dbe7f5", "#fde3cf", "#dcefdc", "#f3dce6", "#e6e0f2", "#f4efd0", "#d8eff0", "#e8e8e8")
_EDGE, _LINE = "#5b6770", "#9aa5ae"


def draw_graphs(graphs: Mapping[str, Graph], title: str, path: Path) -> None:
    """Draw an architecture into a file, each graph below the other.

    A graph in which every node reads the one before is drawn as a stack of blocks from top to
    bottom, any other from left to right. Nodes that a genotype leaves empty are left out.

    Raises:
        HwnasError: The file cannot be written.
    """
    drawn = {name: without_empty(graph) for name, graph in graphs.items()}
    sizes = [_inches(graph) for graph in drawn.values()]
    width, heights = max(w for w, _ in sizes), [h for _, h in sizes]
    figure = Figure(figsize=(width, sum(heights) + 0.6), dpi=DPI, layout="constrained")
    figure.suptitle(title)
    nodes: dict[str, list[Text]] = {}
    columns = figure.subplots(len(drawn), 1, height_ratios=heights, squeeze=False)
    for axes, (name, graph) in zip(columns[:, 0], drawn.items(), strict=True):
        axes.set_axis_off()
        if len(drawn) > 1:
            axes.set_title(name, loc="left")
        nodes[name] = _draw_nodes(axes, graph)
    # Where a label's box ends is known once it has been laid out.
    figure.draw_without_rendering()
    for axes, (name, graph) in zip(columns[:, 0], drawn.items(), strict=True):
        _draw_edges(axes, graph, nodes[name])
    write_picture(figure, path)


def _inches(graph: Graph) -> tuple[float, float]:
    if is_chain(graph):
        return 7.0, BLOCK_INCHES * len(graph.operations)
    depth = layers(graph)
    return LAYER_INCHES * len(depth), NODE_INCHES * max(map(len, depth)) + 0.4


def _draw_nodes(axes: Axes, graph: Graph) -> list[Text]:
    positions = node_positions(graph)
    across, down = zip(*positions, strict=True)
    axes.set_xlim(min(across) - 0.6, max(across) + 0.6)
    axes.set_ylim(min(down) - 0.6, max(down) + 0.6)
    kinds = sorted({operation.split()[0] for operation in graph.operations})
    texts = []
    for node, operation in enumerate(graph.operations):
        colour = _COLOURS[kinds.index(operation.split()[0]) % len(_COLOURS)]
        box = {"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": _EDGE}
        text = axes.text(*positions[node], operation, ha="center", va="center", bbox=box)
        text.set_fontsize(8)
        texts.append(text)
    return texts


def _draw_edges(axes: Axes, graph: Graph, nodes: list[Text]) -> None:
    for i, j in graph.edges:
        arrow = {
            "arrowstyle": "->",
            "color": _LINE,
            "patchA": nodes[i].get_bbox_patch(),
            "patchB": nodes[j].get_bbox_patch(),
            "shrinkA": 1,
            "shrinkB": 2,
        }
        start, end = nodes[i].get_position(), nodes[j].get_position()
        axes.annotate("", xy=end, xytext=start, zorder=0, arrowprops=arrow)
