from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnx_files import SHAPE, ModelFactory, save_onnx


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
        return save_onnx(path, nodes, {"images": shape}, {"w": weights})

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
        return save_onnx(path, nodes, {"images": (1, *SHAPE)}, {"w": weights})

    return write


@pytest.fixture
def two_input_model(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Add", ["a", "b"], ["logits"])]
    return save_onnx(tmp_path / "two.onnx", nodes, {"a": (1, *SHAPE), "b": (1, *SHAPE)}, {})


@pytest.fixture
def unknown_operator_model(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Frobnicate", ["images"], ["logits"])]
    return save_onnx(tmp_path / "unknown.onnx", nodes, {"images": (1, *SHAPE)}, {})
