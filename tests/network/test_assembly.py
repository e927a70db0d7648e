"""Files put together from blocks against those of whole networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from whole_costs import costs_of

import search_spaces
from nas.core.space import Genotype
from nas.network import assembly
from nas.network.assembly import Assembler
from nas.network.onnx import INPUT_NAME, OUTPUT_NAME, export_onnx
from nas.network.space import SearchSpace

SPACES: dict[str, dict[str, Any]] = {
    "mobilenet": {
        "resolutions": (8, 12),
        "stage_channels": (16, 24),
        "stage_strides": (1, 2),
        "max_depth": 2,
    },
    "nasbench201": {"channels": 8, "cells_per_stage": 1},
    "darts": {
        "channels": (8,),
        "cells_per_stage": (1,),
        "operations_per_edge": ("max_pool_3x3", "skip_connect", "dil_conv_3x3"),
    },
    "vit": {"depths": (2, 3), "widths": (48, 64)},
}


@pytest.fixture(scope="module", params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    side = 16 if request.param == "darts" else 8
    fields = SPACES[request.param]
    return search_spaces.get(request.param, input_shape=(3, side, side), num_classes=10, **fields)


@pytest.fixture(scope="module")
def genotypes(space: SearchSpace) -> list[Genotype]:
    rng = np.random.default_rng(5)
    networks = 1 if len(space.genes) > 20 else 2  # cells of DARTS have many blocks
    return [space.sample(rng) for _ in range(networks)]


@pytest.fixture(scope="module")
def files(
    space: SearchSpace, genotypes: list[Genotype], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    return Assembler(space).write(genotypes, tmp_path_factory.mktemp("assembled"))


def optimised(file: Path) -> Counter[tuple[str, str]]:
    """Return the operators that ONNX Runtime runs for a file, counted."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    written = file.with_suffix(".optimised.onnx")
    options.optimized_model_filepath = str(written)
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return Counter((node.domain, node.op_type) for node in onnx.load(str(written)).graph.node)


def signature(file: Path) -> list[tuple[str, str, list[int]]]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    values = (*session.get_inputs(), *session.get_outputs())
    return [(value.name, value.type, value.shape) for value in values]


def test_the_runtime_makes_of_it_what_it_makes_of_the_whole_network(
    space: SearchSpace, genotypes: list[Genotype], files: list[Path], tmp_path: Path
):
    for genotype, file in zip(genotypes, files, strict=True):
        whole = export_onnx(space.build(genotype), space.input_shape, tmp_path / "whole.onnx")
        assert optimised(file) == optimised(whole), genotype
        assert signature(file) == signature(whole)


def test_it_is_a_valid_file_that_runs(space: SearchSpace, files: list[Path]):
    images = np.random.default_rng(0).standard_normal((1, *space.input_shape), dtype=np.float32)
    for number, file in enumerate(files):
        assert file.name == f"{number}.onnx"
        onnx.checker.check_model(onnx.load(str(file)), full_check=True)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
        assert logits.shape == (1, space.num_classes)
        assert np.isfinite(logits).all()


def test_a_file_holds_the_weights_of_its_network(
    space: SearchSpace, genotypes: list[Genotype], files: list[Path]
):
    for genotype, file in zip(genotypes, files, strict=True):
        initializers = onnx.load(str(file)).graph.initializer
        values = sum(int(np.prod(i.dims)) for i in initializers if i.data_type == 1)
        # Normalisations are folded: of four numbers a channel one is left, the bias.
        params = costs_of(space, genotype).params
        assert 0.8 * params < values < 1.2 * params + 200


def test_blocks_are_exported_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fields = {"resolutions": (8,), "stage_channels": (8,), "stage_strides": (1,), "max_depth": 1}
    space = search_spaces.get("mobilenet", input_shape=(1, 8, 8), num_classes=4, **fields)
    exported: list[int] = []

    def counted(network: Any, *arguments: Any) -> onnx.ModelProto:
        exported.append(len(network.blocks))
        return convert(network, *arguments)

    convert = assembly.convert
    monkeypatch.setattr(assembly, "convert", counted)
    monkeypatch.setattr(assembly, "BLOCKS_AT_ONCE", 4)
    rng = np.random.default_rng(1)
    first, second = space.sample(rng), space.sample(rng)
    assembler = Assembler(space)
    assembler.write([first, first], tmp_path)
    blocks = {key(block) for block in space.place(first)}
    assert sum(exported) == len(blocks)
    assert max(exported) <= 4
    before = (tmp_path / "0.onnx").read_bytes()
    assert (tmp_path / "1.onnx").read_bytes() == before
    assembler.write([second, first], tmp_path)
    assert sum(exported) == len(blocks | {key(block) for block in space.place(second)})
    assert (tmp_path / "1.onnx").read_bytes() == before


def key(block: Any) -> tuple[Any, ...]:
    return block.module, str(block.arguments), block.input_shapes


def test_blocks_that_return_a_constant(tmp_path: Path):
    # Nothing leads to the cells' second node, which is zeros.
    fields = {"channels": 4, "cells_per_stage": 1}
    space = search_spaces.get("nasbench201", input_shape=(3, 8, 8), num_classes=4, **fields)
    genotype = space.canonical((0, 3, 3, 3, 3, 3))
    assert "Zeros" in {block.module.__name__ for block in space.place(genotype)}
    (file,) = Assembler(space).write([genotype], tmp_path)
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)
    whole = export_onnx(space.build(genotype), space.input_shape, tmp_path / "whole.onnx")
    assert optimised(file) == optimised(whole)
    assert signature(file) == signature(whole)
