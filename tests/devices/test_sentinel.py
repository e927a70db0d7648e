"""The sentinel's files are what they are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fast_device import installed
from onnx import TensorProto, helper, numpy_helper

from nas.devices import runtimes
from nas.devices.measuring import runtime

FOLDER = Path(runtime.__file__).parent
SHAPE = runtime.SENTINEL_SHAPE
LAYERS = 4


def sentinel() -> onnx.ModelProto:
    """Return four 3 x 3 convolutions with ReLU; `sentinel.onnx` was saved from this.

    Its bytes are the same for every release of ONNX that knows operator set 18.
    """
    channels = SHAPE[0]
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((LAYERS, channels, channels, 3, 3), dtype=np.float32) / 12
    nodes, tensor = [], "images"
    for layer in range(LAYERS):
        names = [tensor, f"weight{layer}"]
        nodes.append(helper.make_node("Conv", names, [f"conv{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"]))
        tensor = f"relu{layer}"
    graph = helper.make_graph(
        nodes,
        "sentinel",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, *SHAPE))],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, (1, *SHAPE))],
        [numpy_helper.from_array(w, f"weight{i}") for i, w in enumerate(weights)],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def test_file_is_what_is_written_here(tmp_path: Path):
    onnx.save(sentinel(), tmp_path / "sentinel.onnx")
    written = (tmp_path / "sentinel.onnx").read_bytes()
    assert (FOLDER / "sentinel.onnx").read_bytes() == written


@pytest.mark.parametrize("name", ["mnn", "ncnn", "litert", "executorch"])
def test_file_of_a_runtime_is_the_same_network(name: str):
    images = np.random.default_rng(1).standard_normal((1, *SHAPE), dtype=np.float32)
    outputs = []
    for kind in ("onnxruntime", installed(name)):
        made = runtimes.get(kind)
        network = made.load(FOLDER / f"sentinel.{made.takes}", images, runtime.Execution())
        outputs.append(network.run(images))
    np.testing.assert_allclose(*outputs, atol=1e-4)
