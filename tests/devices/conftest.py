from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SHAPE = (8, 16, 16)
ModelFactory = Callable[..., Path]


def _save(path: Path, nodes: list[onnx.NodeProto], inputs: dict, weights: dict) -> Path:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def conv_model(tmp_path: Path) -> ModelFactory:
    """Write a chain of 3 x 3 convolutions on 8 channels."""

    def write(layers: int, shape: tuple = (1, *SHAPE), name: str | None = None) -> Path:
        weights = np.random.default_rng(0).standard_normal((8, 8, 3, 3), dtype=np.float32) / 9
        tensors = ["images", *(f"t{i}" for i in range(layers - 1)), "logits"]
        nodes = [
            helper.make_node("Conv", [tensors[i], "w"], [tensors[i + 1]], pads=[1, 1, 1, 1])
            for i in range(layers)
        ]
        path = tmp_path / (name or f"conv{layers}.onnx")
        return _save(path, nodes, {"images": shape}, {"w": weights})

    return write


@pytest.fixture
def linear_model(tmp_path: Path) -> ModelFactory:
    """Write one linear layer of a given weight in megabytes."""

    def write(megabytes: float) -> Path:
        features = int(np.prod(SHAPE))
        outputs = int(megabytes * 1e6 / 4 / features)
        weights = np.random.default_rng(0).standard_normal((features, outputs), dtype=np.float32)
        nodes = [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ]
        path = tmp_path / f"linear{megabytes}.onnx"
        return _save(path, nodes, {"images": (1, *SHAPE)}, {"w": weights})

    return write


@pytest.fixture
def two_input_model(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Add", ["a", "b"], ["logits"])]
    return _save(tmp_path / "two.onnx", nodes, {"a": (1, *SHAPE), "b": (1, *SHAPE)}, {})


@pytest.fixture
def unknown_operator_model(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Frobnicate", ["images"], ["logits"])]
    return _save(tmp_path / "unknown.onnx", nodes, {"images": (1, *SHAPE)}, {})
