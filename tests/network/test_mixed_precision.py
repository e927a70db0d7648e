"""Networks whose stages have different precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import search_spaces
from nas.core.errors import ConfigError
from nas.network.assembly import Assembler
from nas.network.compact import CompactLayer
from nas.network.inheritance import inherit
from nas.network.onnx import export_onnx
from nas.network.quantisation import quantise
from nas.network.shared import SharedWeights
from nas.network.space import SearchSpace

SHAPE = (3, 16, 16)
SMALL = {
    "mobilenet": {"kernels": (3,), "activations": ("relu",)},
    "vit": {"depths": (2,), "widths": (48, 64)},
    "darts": {"channels": (8,), "cells_per_stage": (1,)},
}


def space_of(name: str, *precisions: str) -> SearchSpace:
    images = {"input_shape": SHAPE, "num_classes": 10}
    return search_spaces.get(name, **images, **SMALL[name], precisions=precisions)


def in_one(space: SearchSpace, genotype: tuple[int, ...], precision: str) -> tuple[int, ...]:
    """Return the genotype with all stages in one precision."""
    chosen = [
        gene.choices.index(precision) if gene.name.endswith(".precision") else choice
        for gene, choice in zip(space.genes, genotype, strict=True)
    ]
    return space.canonical(chosen)


@pytest.mark.parametrize("name", list(SMALL))
def test_every_layer_of_a_stage_has_its_precision(name: str, tmp_path: Path) -> None:
    space = space_of(name, "fp32", "int8", "int4_weights")
    plain, rng = space_of(name, "fp32"), np.random.default_rng(0)
    assert "layers" not in plain.deployment(plain.sample(rng))
    drawn = space.sample(rng)
    full, small = in_one(space, drawn, "fp32"), in_one(space, drawn, "int8")
    assert "layers" not in space.deployment(full)
    layers = space.deployment(small)["layers"]
    assert layers.count("int8") > len(layers) / 2
    assert set(layers) <= {"int8", "fp32"}
    costs = space.costs([full, small])
    assert costs["params_m"][0] == costs["params_m"][1]
    assert costs["model_size_mb"][1] < 0.6 * costs["model_size_mb"][0]
    network = space.build(drawn).eval()
    file = export_onnx(network, SHAPE, tmp_path / "full.onnx")
    images = np.random.default_rng(1).standard_normal((8, *SHAPE), dtype=np.float32)
    mixed = space.deployment(drawn)["layers"]
    assert len(mixed) == len(layers)
    quantise(file, SHAPE, tmp_path / "mixed.onnx", images, mixed)
    # As a calibration makes files, of blocks that were exported apart.
    [assembled] = Assembler(space).write([drawn], tmp_path)
    quantise(assembled, SHAPE, tmp_path / "assembled.onnx", images, mixed)


@pytest.mark.parametrize("name", ["mobilenet", "darts"])
def test_precisions_reach_the_layers_that_have_them(name: str, tmp_path: Path) -> None:
    space = space_of(name, "fp32", "int8_weights")
    for seed in range(4):
        drawn = space.sample(np.random.default_rng(seed))
        network = space.build(drawn).eval()
        file = export_onnx(network, SHAPE, tmp_path / "full.onnx")
        layers = space.deployment(drawn).get("layers")
        if layers is None:
            continue
        mixed = onnx.load(quantise(file, SHAPE, tmp_path / "mixed.onnx", None, layers))
        names = {each.name for each in mixed.graph.initializer}
        for path, layer in network.named_modules():
            if isinstance(layer, torch.nn.Conv2d):
                in_8_bits = isinstance(layer, CompactLayer)
                assert (f"{path}.weight_8bits" in names) == in_8_bits, path
                assert (f"{path}.weight" in names) != in_8_bits, path


@pytest.mark.parametrize("name", list(SMALL))
def test_weights_are_shared_between_precisions(name: str) -> None:
    space = space_of(name, "fp32", "int8")
    drawn = space.sample(np.random.default_rng(0))
    networks = [space.build(in_one(space, drawn, p)) for p in ("fp32", "int8")]
    assert inherit(networks[1], networks[0]) == 1
    shared = SharedWeights(space)
    weights = [
        dict(shared.extract(in_one(space, drawn, p)).named_parameters()) for p in ("fp32", "int8")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_precisions_that_there_are_not_are_refused() -> None:
    for wrong in ((), ("int8", "int8"), ("int3",)):
        with pytest.raises(ConfigError, match="precisions"):
            space_of("vit", *wrong)
