from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nas.core.errors import HwnasError
from nas.core.space import Graph
from nas.results.drawing import draw_graphs
from nas.results.layout import layers

CELL = Graph(("input", "conv", "pool", "", "output"), ((0, 1), (0, 2), (1, 4), (2, 4), (0, 4)))
CHAIN = Graph(("input", "conv 3", "conv 5"), ((0, 1), (1, 2)))


def test_nodes_stand_behind_what_they_read():
    assert [sorted(layer) for layer in layers(CELL)[:2]] == [[0, 3], [1, 2]]
    assert layers(CELL)[2] == [4]


def test_pictures_grow_with_what_they_show(tmp_path: Path):
    sizes = {}
    for name, graphs in {"chain": {"a": CHAIN}, "cells": {"a": CELL, "b": CELL}}.items():
        draw_graphs(graphs, name, tmp_path / f"{name}.png")
        sizes[name] = Image.open(tmp_path / f"{name}.png").size
    draw_graphs({"a": CELL}, "cell", tmp_path / "cell.png")
    assert sizes["cells"][1] > Image.open(tmp_path / "cell.png").size[1]
    longer = Graph(("input", *["conv"] * 9), tuple((i, i + 1) for i in range(9)))
    draw_graphs({"a": longer}, "longer", tmp_path / "longer.png")
    assert Image.open(tmp_path / "longer.png").size[1] > sizes["chain"][1]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(HwnasError, match=r"where\.png: cannot be written"):
        draw_graphs({"a": CELL}, "", tmp_path / "no" / "where.png")
