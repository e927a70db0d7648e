"""An ONNX file that takes pixels as they are, and says what its outputs are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.core.errors import ExportError
from nas.export.parity import TOLERANCE, onnx_outputs
from nas.network.onnx import INPUT_NAME, write_model
from nas.network.trained import Preprocessing

PIXELS = "pixels.onnx"
"""Its name in an export."""

PIXELS_INPUT = "pixels"
SEED, COMPARED_IMAGES = 0, 4


def write_from_pixels(
    model: Path, preprocessing: Preprocessing, outputs: tuple[str, ...], path: Path
) -> Path:
    """Write a network's ONNX file anew, with its preprocessing as the first operators.

    The input is `pixels`, uint8 `(1, C, H, W)`; the file's metadata has the names of the outputs,
    under `outputs`, as JSON.

    Args:
        model: The ONNX file, quantised or not.
        preprocessing: Of its images.
        outputs: The name of every output.
        path: Of the file to write.

    Returns:
        `path`.

    Raises:
        ExportError: The file computes something else, or cannot be written.
    """
    whole = onnx.load(model)
    graph = whole.graph
    [images] = [each for each in graph.input if each.name == INPUT_NAME]
    shape = (1, *preprocessing.input_shape)
    by_channel = (1, len(preprocessing.mean), 1, 1)
    constants = {
        "pixel_scale": np.float32(preprocessing.scale),
        "pixel_mean": np.array(preprocessing.mean, np.float32).reshape(by_channel),
        "pixel_std": np.array(preprocessing.std, np.float32).reshape(by_channel),
    }
    steps = [
        helper.make_node("Cast", [PIXELS_INPUT], ["pixel_values"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixel_values", "pixel_scale"], ["pixel_shares"]),
        helper.make_node("Sub", ["pixel_shares", "pixel_mean"], ["pixel_centred"]),
        helper.make_node("Div", ["pixel_centred", "pixel_std"], [INPUT_NAME]),
    ]
    graph.input.remove(images)
    graph.input.insert(0, helper.make_tensor_value_info(PIXELS_INPUT, TensorProto.UINT8, shape))
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()
    )
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*steps, *own])
    helper.set_model_props(whole, {"outputs": json.dumps(list(outputs))})
    write_model(whole, path)
    _check(model, preprocessing, path)
    return path


def _check(model: Path, preprocessing: Preprocessing, path: Path) -> None:
    """Compare both files on random pixels."""
    import torch

    rng = np.random.default_rng(SEED)
    shape = (COMPARED_IMAGES, *preprocessing.input_shape)
    pixels = rng.integers(0, 256, shape, np.uint8)
    expected = onnx_outputs(model, preprocessing(torch.from_numpy(pixels)).numpy())
    found = onnx_outputs(path, pixels, PIXELS_INPUT)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        line = f"outputs differ from those of {model.name} by {difference:.3g}"
        raise ExportError(f"{path.name}: {line}, expected {TOLERANCE:g} or less")
