"""Against the published table: NAS-Bench-201 (Dong and Yang, ICLR 2020) and what was joined to it.

The table's figures, and what they should show, are those of its README of origin; parameters and
multiply-accumulates are the benchmark's own (its "params" and "FLOPs").
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import search_spaces
from nas.core.errors import ConfigError, GenotypeError
from nas.core.space import Genotype
from nas.network.space import SearchSpace
from nas.tables import nasbench201 as tables
from search_spaces.nasbench201 import EDGES, OPERATIONS, parse, to_text

TABLE = tables.load_nasbench201()
CELLS = TABLE["ops"].astype(np.int64)
BIAS_M = 1e-6
"""The benchmark counts the addition of the classifier's bias as an operation, for each class."""
DIGEST = "981e608ad0b3e583"


def space(input_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10) -> SearchSpace:
    return search_spaces.get("nasbench201", input_shape=input_shape, num_classes=num_classes)


def test_parameters_and_operations_of_every_cell_equal_the_table():
    costs = space().costs(CELLS)
    # The table is rounded to 32-bit floating point.
    np.testing.assert_array_equal(costs["params_m"].astype(np.float32), TABLE["params_m"])
    macs_m = costs["macs_m"] + BIAS_M * 10
    np.testing.assert_allclose(macs_m, TABLE["macs_m_cifar10"], rtol=1.2e-7)


@pytest.mark.parametrize(
    ("input_shape", "classes", "macs", "more_params_m"),
    [
        ((3, 32, 32), 100, "macs_m_cifar10", 0.00585),
        ((3, 16, 16), 120, "macs_m_imagenet16", 0.00715),
    ],
)
def test_the_other_data_sets(
    input_shape: tuple[int, int, int], classes: int, macs: str, more_params_m: float
):
    costs = space(input_shape, classes).costs(CELLS)
    np.testing.assert_allclose(costs["params_m"], TABLE["params_m"] + more_params_m, rtol=2e-7)
    # CIFAR-100's classifier is not in the table's figure, ImageNet16's is.
    more_macs_m = 0.00585 if classes == 100 else 0.0
    macs_m = costs["macs_m"] + BIAS_M * classes
    np.testing.assert_allclose(macs_m, TABLE[macs] + more_macs_m, rtol=2e-7)


def unique_text(genotype: Genotype) -> str:
    """Return the text by which the benchmark's authors tell cells apart (with zeros removed)."""
    nodes = {0: "0"}
    for target in range(1, 4):
        terms = []
        for i, (end, source) in enumerate(EDGES):
            operation = OPERATIONS[genotype[i]]
            if end == target and (operation == "none" or nodes[source] == "#"):
                terms.append("#")
            elif end == target and operation == "skip_connect":
                terms.append(nodes[source])
            elif end == target:
                terms.append(f"({nodes[source]})@{operation}")
        nodes[target] = "+".join(sorted(terms))
    return nodes[3]


def test_by_the_papers_rule_6466_cells_are_unique():
    assert len({unique_text(cell) for cell in CELLS.tolist()}) == 6466


def test_8265_cells_are_different_networks():
    at = space()
    canonical = at.canonicalise(CELLS)
    assert at.size == len(np.unique(canonical, axis=0)) == 8265
    np.testing.assert_array_equal(at.canonicalise(canonical), canonical)


def test_cells_that_are_folded_have_the_same_parameters_and_accuracies_within_noise():
    """Two trainings of one network differ by noise; by far more if they were different ones."""
    canonical = space().canonicalise(CELLS)
    _, group, counts = np.unique(canonical, axis=0, return_inverse=True, return_counts=True)
    for column in ("params_m", "macs_m_cifar10"):
        values = TABLE[column]
        spread = np.full(len(counts), -np.inf)
        np.maximum.at(spread, group, values)
        np.testing.assert_array_equal(spread[group], values)
    accuracy = TABLE["acc200_cifar10_valid"]
    means = np.bincount(group, accuracy) / counts
    good = (means[group] > 80) & (counts[group] > 1)
    assert np.median(np.abs(accuracy - means[group])[good]) < 0.2
    assert np.median(np.abs(accuracy - accuracy[good].mean())[good]) > 1


@pytest.mark.parametrize(
    ("cell", "same"),
    [
        # Inner nodes renamed.
        ("|a~0|+|b~0|none~1|+|c~0|d~1|e~2|", "|b~0|+|a~0|none~1|+|c~0|e~1|d~2|"),
        # A node that nobody reads.
        ("|p~0|+|s~0|none~1|+|a~0|none~1|none~2|", "|none~0|+|none~0|none~1|+|a~0|none~1|none~2|"),
        # Pooling of zeros.
        ("|none~0|+|a~0|p~1|+|s~0|p~1|b~2|", "|none~0|+|a~0|none~1|+|s~0|none~1|b~2|"),
        # The first node is the input.
        ("|s~0|+|a~0|b~1|+|a~0|b~1|p~2|", "|s~0|+|b~0|a~1|+|b~0|a~1|p~2|"),
    ],
)
def test_cells_that_are_the_same_network(cell: str, same: str):
    names = {"a": "nor_conv_1x1", "b": "nor_conv_3x3", "c": "skip_connect", "d": "avg_pool_3x3"}
    names |= {"e": "nor_conv_3x3", "p": "avg_pool_3x3", "s": "skip_connect"}
    first, second = (parse(_spelled(text, names)) for text in (cell, same))
    assert first != second
    assert space().canonical(first) == space().canonical(second)


def _spelled(text: str, names: dict[str, str]) -> str:
    for short, name in names.items():
        text = text.replace(f"|{short}~", f"|{name}~")
    return text


def test_a_convolution_that_nobody_reads_stays_as_in_the_benchmark():
    dead = parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|")
    at = space()
    assert round(at.costs([dead])["params_m"][0] * 1e6) == 73_306 + 243_040 + 28_000
    images = torch.randn(2, 3, 32, 32)
    assert at.build(dead).eval()(images).shape == (2, 10)


def test_texts_of_all_cells():
    for cell, text in zip(CELLS[::97].tolist(), TABLE["arch_str"][::97], strict=True):
        assert parse(str(text)) == tuple(cell)
        assert to_text(cell) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|", "cell: got"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "gene edge1_0: got 'conv~0'"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "gene edge2_1: got 'none~0'"),
    ],
)
def test_a_wrong_text_is_refused(text: str, message: str):
    with pytest.raises(GenotypeError, match=message):
        parse(text)


def test_the_table_is_the_published_one():
    digest = hashlib.sha256(tables.NASBENCH201.read_bytes()).hexdigest()
    assert digest.startswith(DIGEST)
    best = TABLE["acc200_cifar10_valid"].argmax()
    assert (best, round(float(TABLE["acc200_cifar10_valid"][best]), 2)) == (6111, 91.61)
    assert TABLE["lat_ms"].shape == (15625, len(TABLE["lat_devices"])) == (15625, 27)
    for accuracy, expected in (
        ("acc200_cifar10_valid", 0.712),
        ("acc200_cifar100_valtest", 0.728),
        ("acc200_imagenet16_valtest", 0.686),
    ):
        correlation = spearmanr(TABLE["macs_m_cifar10"], TABLE[accuracy]).statistic
        assert correlation == pytest.approx(expected, abs=5e-4)
    notices = tables.NASBENCH201.parent
    assert "Permission is hereby granted" in (notices / "LICENSES.md").read_text("utf-8")
    assert "Apache License" in (notices / "LICENSE-APACHE-2.0.txt").read_text("utf-8")


def test_nobody_can_change_the_table():
    with pytest.raises(ValueError, match="read-only"):
        TABLE["ops"][0] = 0


@pytest.mark.parametrize("name", ["channels", "cells_per_stage"])
def test_a_wrong_setting_is_named(name: str):
    with pytest.raises(ConfigError, match=f"search_space.{name}: got 0"):
        search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10, **{name: 0})
