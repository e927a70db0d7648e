"""Compressed networks as they are judged in PyTorch, against the files that are deployed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import openvino
import pytest
import torch
from bases import Net
from torch import nn

import search_spaces
from nas import data
from nas.core.errors import ExportError
from nas.core.recipe import Recipe
from nas.core.trial import Candidate
from nas.export.parity import check_parity, onnx_outputs
from nas.network.onnx import export_onnx
from nas.network.quantisation import quantise
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.trainer import train

PRECISIONS = ("fp32", "int8", "int8_weights", "int4_weights")


@pytest.fixture(scope="module")
def splits() -> data.SearchSplits:
    return data.get("digits").search_splits()


@pytest.fixture(scope="module")
def base(splits: data.SearchSplits) -> nn.Module:
    torch.manual_seed(0)
    network = Net(1, 10)
    train(network, splits.train, Recipe.of("fast", epochs=8), Preprocessing.of(splits.train))
    return network.eval()


@pytest.fixture
def space(
    base: nn.Module, splits: data.SearchSplits, monkeypatch: pytest.MonkeyPatch
) -> SearchSpace:
    module = ModuleType("trained_on_digits")
    module.net = lambda: base
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return search_spaces.get(
        "compressed",
        input_shape=splits.input_shape,
        num_classes=10,
        base=f"{module.__name__}:net",
        channels=(1.0,),
        precisions=PRECISIONS,
        sparsities=(0.0, 0.5),
        clusters=(0, 32),
    )


def genotype_of(space: SearchSpace, kind: str) -> tuple[int, ...]:
    if kind == "any":
        return space.sample(np.random.default_rng(1))
    chosen = dict(space.decode(space.references()["base"]))
    for gene in space.genes:
        if gene.name.endswith("precision"):
            chosen[gene.name] = kind if kind in gene.choices else "int8_weights"
    return space.canonical([gene.choices.index(chosen[gene.name]) for gene in space.genes])


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("kind", ["int8", "int8_weights", "int4_weights", "any"])
def test_the_file_predicts_what_the_network_predicts(
    space: SearchSpace, splits: data.SearchSplits, kind: str, epochs: int, tmp_path: Path
) -> None:
    preprocessing, genotype = Preprocessing.of(splits.train), genotype_of(space, kind)
    recipe = Recipe.of("fast", epochs=epochs, optimizer={"learning_rate": 0.01})
    job = TrainingJob(
        space=space,
        train=splits.train,
        held_out=splits.validation,
        preprocessing=preprocessing,
        recipe=recipe,
        return_weights=True,
    )
    candidate = Candidate(number=0, genotype=genotype, arch_id="a", seed=0)
    outcome = job(candidate, float("inf"))
    network = job.trained_network(candidate, outcome).module
    pixels = np.concatenate([splits.train.pixels[:], splits.validation.pixels[:]])
    images = preprocessing(torch.from_numpy(pixels)).numpy()
    full = export_onnx(network, space.input_shape, tmp_path / "full.onnx")
    check_parity(network, full, images[:16])
    layers = space.deployment(genotype)["layers"]
    file = quantise(full, space.input_shape, tmp_path / "small.onnx", images[:512], layers)
    deployed = onnx_outputs(file, images).argmax(1)
    with torch.inference_mode():
        own = network(torch.from_numpy(images)).numpy().argmax(1)
    assert (deployed == own).mean() >= 0.995
    compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    in_openvino = [compiled(images[i : i + 1])[0].argmax() for i in range(len(images))]
    assert (np.array(in_openvino) == own).mean() >= 0.995


def test_a_file_of_another_network_is_refused(space: SearchSpace, tmp_path: Path) -> None:
    genotype = genotype_of(space, "int8")
    file = export_onnx(space.build(genotype), space.input_shape, tmp_path / "full.onnx")
    layers = space.deployment(genotype)["layers"]
    with pytest.raises(ExportError, match=r"by layers"):
        quantise(file, space.input_shape, tmp_path / "small.onnx", None, layers[1:])
