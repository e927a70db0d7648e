"""Eight-bit forms of the spaces' networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import search_spaces
from nas.core.measurement import CALIBRATION_KEY
from nas.network.onnx import export_onnx
from nas.network.quantisation import CALIBRATION_IMAGES, quantise

SHAPE = (3, 32, 32)
PRODUCTS = {"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul"}
QUANTISED = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}


def optimised(path: Path, folder: Path) -> Counter[str]:
    """Return the operators that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node)


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": images[i : i + 1]})[0] for i in range(8)])


@pytest.mark.parametrize("name", ["mobilenet", "vit", "darts"])
def test_networks_of_the_spaces_run_in_eight_bits(name: str, tmp_path: Path):
    space = search_spaces.get(name, input_shape=SHAPE, num_classes=10)
    network = space.build(space.sample(np.random.default_rng(0)))
    full = export_onnx(network, SHAPE, tmp_path / "full.onnx")
    images = np.random.default_rng(1).standard_normal((8, *SHAPE), dtype=np.float32)
    small = quantise(full, SHAPE, tmp_path / "small.onnx", images)
    # All products but the few that ONNX Runtime has no eight-bit kernel for.
    before, after = optimised(full, tmp_path), optimised(small, tmp_path)
    products = sum(before[op] for op in PRODUCTS)
    assert sum(after[op] for op in QUANTISED) >= 0.9 * products
    assert small.stat().st_size < 0.55 * full.stat().st_size
    assert np.corrcoef(logits(full, images).ravel(), logits(small, images).ravel())[0, 1] > 0.9


def test_weights_have_a_scale_a_channel(tmp_path: Path):
    space = search_spaces.get("mobilenet", input_shape=SHAPE, num_classes=10)
    network = space.build(space.sample(np.random.default_rng(0)))
    full = export_onnx(network, SHAPE, tmp_path / "full.onnx")
    model = onnx.load(quantise(full, SHAPE, tmp_path / "small.onnx"))
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {
        node.input[0]: node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays
    }
    kernels = [name for name in weights if arrays[name].ndim == 4]
    assert kernels
    assert all(arrays[name].dtype == np.int8 for name in kernels)
    assert all(len(arrays[weights[name]]) == len(arrays[name]) for name in kernels)


def test_file_says_which_images_it_was_calibrated_with(tmp_path: Path):
    space = search_spaces.get("mobilenet", input_shape=SHAPE, num_classes=10)
    network = space.build(space.sample(np.random.default_rng(0)))
    full = export_onnx(network, SHAPE, tmp_path / "full.onnx")
    images = np.zeros((CALIBRATION_IMAGES + 5, *SHAPE), np.float32)
    for given, expected in (
        (None, "16 random images"),
        (images, f"{CALIBRATION_IMAGES} images that were given"),
    ):
        model = onnx.load(quantise(full, SHAPE, tmp_path / "small.onnx", given))
        assert {p.key: p.value for p in model.metadata_props}[CALIBRATION_KEY] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.onnx", "small.onnx"]


def test_linear_layers_of_tokens_multiply_integers(tmp_path: Path):
    shape = (1, 8, 8)
    space = search_spaces.get("vit", input_shape=shape, num_classes=10, precisions=("fp32", "int8"))
    last = {gene.name: len(gene.choices) - 1 for gene in space.genes}
    genotype = space.canonical([last[g.name] * g.name.endswith("precision") for g in space.genes])
    layers = space.deployment(genotype)["layers"]
    full = export_onnx(space.build(genotype), shape, tmp_path / "full.onnx")
    file = quantise(full, shape, tmp_path / "mixed.onnx", None, layers)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    assert operators["QGemm"] + operators["QLinearConv"] == layers.count("int8") > 4
