"""Static 8-bit quantisation of an ONNX file, in the form that runtimes recognise (QDQ).

Weights are signed integers with a scale a channel, activations unsigned integers with one scale
and zero point a tensor, whose range is that of the calibration images (Jacob et al., Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018; the
choice of types is ONNX Runtime's for x86 processors, which ARM ones run as well). The file says
which images it was calibrated with.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization
from onnxruntime.capi import onnxruntime_pybind11_state as state
from onnxruntime.quantization.shape_inference import quant_pre_process

from nas.core.errors import ExportError, one_line
from nas.core.files import temporary_folder
from nas.core.measurement import CALIBRATION_KEY, ImageArray
from nas.network.onnx import silence, write_model

CALIBRATION_IMAGES = 64
"""Most images that are used; the ranges of activations change little beyond."""
_RANDOM_IMAGES = 16
_QDQ = "QuantizeLinear"
RUNTIME_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
)
"""What ONNX Runtime raises for a file that it does not run; it has no common base."""


def quantise(
    source: Path,
    input_shape: tuple[int, int, int],
    path: Path,
    images: ImageArray | None = None,
) -> Path:
    """Write the quantised form of an ONNX file; return `path`, or `source` if it is one already.

    Args:
        source: Takes one image, `(1, C, H, W)` float32.
        input_shape: `(C, H, W)`.
        path: Of the file to write.
        images: Normalised, `(n, C, H, W)`, of which at most `CALIBRATION_IMAGES` are used. Without
            them standard normal noise is used, which serves to time a network, not to deploy it.

    Raises:
        ExportError: It cannot be quantised.
    """
    name = _input_name(source, input_shape)
    operators = Counter(node.op_type for node in onnx.load(source).graph.node)
    if operators[_QDQ]:
        return source
    batch, origin = _calibration(input_shape, images)
    quantised = _quantised(source, _Reader(name, batch))
    if not any(node.op_type == _QDQ for node in quantised.graph.node):
        raise ExportError(
            f"has no operator that can be quantised (it has {', '.join(sorted(operators))}); "
            "use precision fp32"
        )
    onnx.helper.set_model_props(quantised, {CALIBRATION_KEY: origin})
    return write_model(quantised, path)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Gives images one by one."""

    def __init__(self, name: str, images: ImageArray) -> None:
        self._feeds = iter([{name: images[i : i + 1]} for i in range(len(images))])

    def get_next(self) -> dict[str, ImageArray] | None:
        """Return the next input, `None` after the last."""
        return next(self._feeds, None)


def _input_name(source: Path, input_shape: tuple[int, int, int]) -> str:
    """Return the name of the only input, after ONNX Runtime has taken the whole file.

    The quantiser finds out late, and says little, when it is given something else.
    """
    try:
        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise ExportError(
            f"cannot be quantised: ONNX Runtime refuses it ({one_line(error)})"
        ) from error
    inputs = session.get_inputs()
    shapes = [list(each.shape) for each in inputs]
    if shapes != [[1, *input_shape]]:
        raise ExportError(
            f"cannot be quantised: has inputs of shape {shapes}, expected one of the fixed shape "
            f"{[1, *input_shape]}"
        )
    return str(inputs[0].name)


def _calibration(
    input_shape: tuple[int, int, int], images: ImageArray | None
) -> tuple[ImageArray, str]:
    """Return calibration images and what to call them."""
    if images is None:
        rng = np.random.default_rng(0)
        shape = (_RANDOM_IMAGES, *input_shape)
        return rng.standard_normal(shape, dtype=np.float32), f"{_RANDOM_IMAGES} random images"
    if len(images) == 0 or images.shape[1:] != input_shape:
        raise ExportError(
            f"calibration images: got shape {images.shape}, expected (n, "
            f"{', '.join(map(str, input_shape))}) with n of 1 or more"
        )
    chosen = np.ascontiguousarray(images[:CALIBRATION_IMAGES], dtype=np.float32)
    return chosen, f"{len(chosen)} images that were given"


def _quantised(source: Path, reader: _Reader) -> onnx.ModelProto:
    with temporary_folder() as folder, silence():
        prepared, written = folder / "prepared.onnx", folder / "quantised.onnx"
        try:
            # Shapes are fixed, so that the inference of symbolic ones has nothing to add.
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(written),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
            return onnx.load(written)
        except (*RUNTIME_ERRORS, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            raise ExportError(f"cannot be quantised ({one_line(error)})") from error
