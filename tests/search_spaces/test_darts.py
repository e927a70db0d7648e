from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from whole_costs import costs_of, count

import search_spaces
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace
from search_spaces.darts import OPERATIONS


def space(**settings: object) -> SearchSpace:
    return search_spaces.get("darts", **{"input_shape": (3, 32, 32), "num_classes": 10, **settings})


@pytest.mark.parametrize(
    ("name", "params", "macs_m"),
    [
        # Parameters without the auxiliary head: quark0/darts prints "param size = 3.349342MB" for
        # DARTS_V2 in cnn/test.py. Multiply-adds of DARTS_V2 and PC-DARTS: 528 M and 558 M in the
        # comparison on CIFAR-10 of DARTS- (Chu et al., ICLR 2021); of DARTS_V1 none were found.
        ("darts_v1", 3_169_414, None),
        ("darts_v2", 3_349_342, 528),
        # 3.6 M parameters in Xu et al., ICLR 2020, table 1.
        ("pc_darts", 3_634_678, 558),
    ],
)
def test_published_cells(name: str, params: int, macs_m: float | None):
    at = space()
    costs = costs_of(at, at.references()[name])
    assert costs.params == params
    if macs_m is not None:
        assert costs.macs / 1e6 == pytest.approx(macs_m, rel=0.005)
    network = at.build(at.references()[name]).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32))
    assert 2 * costs.macs == counter.get_total_flops()


def test_the_imagenet_network_has_the_published_parameters():
    """DARTS_V2 with 48 channels and 14 cells: 4,718,752 parameters (4.7 M in the paper)."""
    cells = space().decode(space().references()["darts_v2"])
    large = space(input_shape=(3, 224, 224), num_classes=1000)
    sizes = {"channels": 48, "cells_per_stage": 4}
    genotype = [gene.choices.index({**cells, **sizes}[gene.name]) for gene in large.genes]
    assert costs_of(large, genotype).params == 4_718_752
    shapes = {block["name"]: block["output_shape"] for block in large.describe(genotype)}
    assert shapes["stem"] == [48, 56, 56]
    assert shapes["stem2"] == [48, 28, 28]
    assert shapes["stage3_cell4_output"] == [768, 7, 7]


def test_the_size_of_the_papers_space():
    """About 10^18 (section 3.1): for each node its pair of inputs, and two of seven operations."""
    paper = space(channels=(36,), cells_per_stage=(6,))
    assert paper.size == (1 * 3 * 6 * 10 * 7**8) ** 2
    assert 1e18 < paper.size < 1.1e18


def test_resolution_is_halved_at_a_third_and_two_thirds():
    at = space()
    network = at.describe(at.references()["darts_v2"])
    outputs = [b for b in network if b["name"].endswith("_output")]
    assert len(outputs) == 20
    halved = [i for i, block in enumerate(outputs) if block["name"].startswith("reduction")]
    assert halved == [20 // 3, 2 * 20 // 3]
    assert [b["output_shape"] for b in outputs[5:7]] == [[144, 32, 32], [288, 16, 16]]


def test_a_cell_reads_the_two_cells_before_it():
    at = space()
    genotype = [0, 1, *[0] * (len(at.genes) - 2)]  # two cells a stage
    reads = {block["name"]: block["inputs"] for block in at.describe(genotype)}
    assert reads["stage1_cell1_input0"] == reads["stage1_cell1_input1"] == ["stem"]
    assert reads["stage1_cell2_input0"] == ["stem"]
    assert reads["reduction1_input0"] == ["stage1_cell1_output"]
    assert reads["stage2_cell1_input0"] == ["stage1_cell2_output"]
    assert reads["stage2_cell1_input1"] == ["reduction1_output"]
    assert reads["classifier"] == ["stage3_cell2_output"]


def test_the_auxiliary_classifier_is_that_of_the_paper():
    """Of DARTS_V2, after the second reduction: 576 channels of 8 x 8 pixels."""
    at = space()
    genotype = at.references()["darts_v2"]
    network = at.build(genotype, auxiliary=True)
    size = sum(p.numel() for p in network.auxiliary.parameters())
    features = 576 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768
    assert size == features + 768 * 10 + 10
    logits, auxiliary = network.eval().all_outputs(torch.zeros(2, 3, 32, 32))
    assert logits.shape == auxiliary.shape == (2, 10)
    network.drop_auxiliary()
    assert sum(p.numel() for p in network.parameters()) == 3_349_342


def test_none_leaves_an_edge_out():
    with_none = space(
        operations_per_edge=("none", *OPERATIONS), channels=(8,), cells_per_stage=(1,)
    )
    paper = space(channels=(8,), cells_per_stage=(1,))
    # A node has no edge, one of any state, or a pair of edges as in the paper.
    nodes = [1 + states * 7 + states * (states - 1) // 2 * 49 for states in (2, 3, 4, 5)]
    assert with_none.size == int(np.prod(nodes)) ** 2
    rng = np.random.default_rng(0)
    empty = with_none.canonical([0] * len(with_none.genes))
    assert with_none.build(empty)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    for genotype in with_none.samples(10, rng).tolist():
        with torch.device("meta"):
            network = with_none.build(genotype)
        assert costs_of(with_none, genotype) == count(network, with_none.input_shape)
    full = paper.sample(rng)
    shifted = [
        i + 1 if gene.name.endswith(("first", "second")) else i
        for gene, i in zip(paper.genes, full, strict=True)
    ]
    assert costs_of(with_none, shifted) == costs_of(paper, full)


def test_edges_that_are_none_have_no_input():
    at = space(operations_per_edge=("none", "skip_connect"))
    names = [gene.name for gene in at.genes]
    one = [0] * len(names)
    one[names.index("normal.node2.second")] = 1  # none of c0, skip of c1
    two = list(one)
    two[names.index("normal.node2.inputs")] = 2  # c1 and n1: skip of n1
    three = list(one)
    three[names.index("normal.node2.first")] = 1
    three[names.index("normal.node2.second")] = 0
    three[names.index("normal.node2.inputs")] = 2  # skip of c1, none of n1
    assert at.canonical(one) == at.canonical(three) != at.canonical(two)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", (8, 8)),
        ("channels", (0,)),
        ("cells_per_stage", (-1,)),
        ("operations_per_edge", ()),
        ("operations_per_edge", ("conv",)),
        ("operations_per_edge", ("skip_connect", "skip_connect")),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object):
    with pytest.raises(ConfigError, match=f"search_space.{name}: got"):
        space(**{name: value})
