"""Static 8-bit quantisation of an ONNX file, in the form that runtimes recognise (QDQ).

Weights are signed integers with a scale a channel, activations unsigned integers with one scale
and zero point a tensor, whose range is that of the calibration images (Jacob et al., Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018; the
choice of types is ONNX Runtime's for x86 processors, which ARM ones run as well). The file says
which images it was calibrated with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.capi import onnxruntime_pybind11_state as state
from onnxruntime.quantization.shape_inference import quant_pre_process

from nas.core.errors import ExportError, one_line
from nas.core.files import temporary_folder
from nas.core.measurement import CALIBRATION_KEY, INT8, ImageArray
from nas.network.compact import BLOCK, INT4_WEIGHTS, INT8_WEIGHTS, packed_4_bits
from nas.network.onnx import LINEAR, silence, write_model

CALIBRATION_IMAGES = 64
"""Most images that are used; the ranges of activations change little beyond."""
_RANDOM_IMAGES = 16
_QDQ = "QuantizeLinear"
_PRODUCTS = ("MatMul", "Gemm")
_FLOATING_OUTPUTS = {"OpTypesToExcludeOutputQuantization": list(_PRODUCTS)}
"""Products add up integers, which the runtime turns into floating point at no cost."""

_PASSING = (
    "Add",
    "Clip",
    "Concat",
    "Flatten",
    "MaxPool",
    "Relu",
    "Reshape",
    "Transpose",
)
"""Operators that stay in 8 bits behind layers in 8 bits; others lose accuracy, and win no time.

Averages are left out: ONNX Runtime gives them the scale of their input, or none.
"""
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
    layers: Sequence[str] = (),
) -> Path:
    """Write the quantised form of an ONNX file; return `path`, or `source` if it is one already.

    Args:
        source: Takes one image, `(1, C, H, W)` float32.
        input_shape: `(C, H, W)`.
        path: Of the file to write.
        images: Normalised, `(n, C, H, W)`, of which at most `CALIBRATION_IMAGES` are used. Without
            them standard normal noise is used, which serves to time a network, not to deploy it.
        layers: Precision of every layer with weights, in the order in which they run; see
            `nas.network.compact`. Empty for 8 bits wherever that is possible.

    Raises:
        ExportError: It cannot be quantised.
    """
    name = _input_name(source, input_shape)
    operators = Counter(node.op_type for node in onnx.load(source).graph.node)
    if operators[_QDQ]:
        return source
    batch, origin = calibration_batch(input_shape, images)
    if layers:
        mixed = _mixed(source, _Reader(name, batch), layers)
        onnx.helper.set_model_props(mixed, {CALIBRATION_KEY: origin})
        return write_model(mixed, path)
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


def calibration_batch(
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


def _mixed(source: Path, reader: _Reader, layers: Sequence[str]) -> onnx.ModelProto:
    """Return a model whose layers with weights have precisions of their own.

    What a layer's output goes through, up to the next layer with weights, is computed in integers
    where all that it reads comes from layers in 8 bits.
    """
    model = onnx.load(source)
    weights = {each.name for each in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if (node.op_type == "Conv" or LINEAR in node.name) and node.input[1] in weights
    ]
    if len(nodes) != len(layers):
        raise ExportError(
            f"cannot be quantised by layers: it has {len(nodes)} with weights "
            f"({', '.join(node.op_type for node in nodes)}), expected {len(layers)}"
        )
    precisions = dict(zip((node.name for node in nodes), layers, strict=True))
    _make_gemms(model, {name for name, p in precisions.items() if p == INT8})
    in_8_bits = _in_8_bits(model, precisions)
    quantised = _quantised(model, reader, in_8_bits) if in_8_bits else model
    for node in list(quantised.graph.node):
        precision = precisions.get(node.name)
        if precision == INT4_WEIGHTS and node.op_type in _PRODUCTS:
            _pack_4_bits(quantised.graph, node)
        elif precision in (INT4_WEIGHTS, INT8_WEIGHTS):
            _store_8_bits(quantised.graph, node)
    _set_opsets(quantised)
    return quantised


def _in_8_bits(model: onnx.ModelProto, precisions: Mapping[str, str]) -> list[str]:
    """Return the names of the nodes that compute in 8 bits."""
    found: list[str] = []
    tensors: set[str] = set()
    for node in model.graph.node:
        read = node.input if node.op_type in ("Add", "Concat") else node.input[:1]
        passes = node.op_type in _PASSING and bool(read) and tensors.issuperset(read)
        if precisions.get(node.name) == INT8 or passes:
            found.append(node.name)
            if node.op_type not in _PRODUCTS:
                tensors.update(node.output)
    return found


def _make_gemms(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Let linear layers of tokens multiply two matrices and add the bias in one operator.

    ONNX Runtime does so itself, but then no longer sees that they are quantised, and multiplies in
    floating point.
    """
    graph = model.graph
    known = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*known.value_info, *known.input)
    }
    constants = {each.name: list(each.dims) for each in graph.initializer}
    for node in [each for each in graph.node if each.op_type == "MatMul" and each.name in names]:
        read, weight = node.input
        sizes, outputs = shapes.get(read, []), constants[weight][1]
        if not sizes or not all(sizes):
            continue
        readers = [each for each in graph.node if node.output[0] in each.input]
        bias = [
            name
            for each in readers
            for name in each.input
            if each.op_type == "Add" and constants.get(name) == [outputs]
        ]
        replaced = [node, *(readers if bias else [])]
        rows, product = f"{node.name}_rows", f"{node.name}_product"
        for name, shape in ((rows, [-1, sizes[-1]]), (product, [*sizes[:-1], outputs])):
            constant = numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{name}_shape")
            graph.initializer.append(constant)
        position, output = list(graph.node).index(replaced[-1]), replaced[-1].output[0]
        made = [
            onnx.helper.make_node("Reshape", [read, f"{rows}_shape"], [rows], rows),
            onnx.helper.make_node("Gemm", [rows, weight, *bias], [product], node.name),
            onnx.helper.make_node("Reshape", [product, f"{product}_shape"], [output], product),
        ]
        for each in reversed(made):
            graph.node.insert(position + 1, each)
        for each in replaced:
            graph.node.remove(each)


def _store_8_bits(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Give a layer 8-bit weights, which the runtime turns into floating point."""
    weight = _taken(graph, node.input[1])
    axis = _output_axis(node)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / 127, 1e-12)
    codes = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
    _dequantise(graph, node, codes, scale.astype(np.float32).reshape(-1), axis)


def _pack_4_bits(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Make a linear layer one of ONNX Runtime's operators with 4-bit weights."""
    weight = _taken(graph, node.input[1])
    if _output_axis(node) == 0:
        weight = weight.T  # (inputs, outputs)
    inputs, outputs = weight.shape
    packed, scales = packed_4_bits(torch.from_numpy(np.ascontiguousarray(weight.T)))
    name = node.input[1]
    read = [node.input[0], f"{name}_4bits", f"{name}_scales"]
    graph.initializer.extend(
        [numpy_helper.from_array(packed, read[1]), numpy_helper.from_array(scales, read[2])]
    )
    if node.op_type == "Gemm" and len(node.input) > 2:
        read += ["", "", node.input[2]]
    packed_node = onnx.helper.make_node(
        "MatMulNBits",
        read,
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        accuracy_level=4,  # in 8-bit integers, many times as fast as in floating point
        K=inputs,
        N=outputs,
        bits=4,
        block_size=BLOCK,
    )
    node.CopyFrom(packed_node)


def _output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's weights that counts its outputs."""
    if node.op_type == "MatMul":
        return 1
    transposed = {a.name: a.i for a in node.attribute}.get("transB", 0)
    return 0 if node.op_type == "Conv" or transposed else 1


def _taken(graph: onnx.GraphProto, name: str) -> npt.NDArray[np.float32]:
    """Take a tensor out of a graph."""
    [tensor] = [each for each in graph.initializer if each.name == name]
    graph.initializer.remove(tensor)
    return np.array(numpy_helper.to_array(tensor))


def _dequantise(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    codes: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float32],
    axis: int,
) -> None:
    name = node.input[1]
    read = [f"{name}_8bits", f"{name}_scale"]
    graph.initializer.extend(
        [numpy_helper.from_array(codes, read[0]), numpy_helper.from_array(scale, read[1])]
    )
    position = list(graph.node).index(node)
    graph.node.insert(
        position, onnx.helper.make_node("DequantizeLinear", read, [name], f"{name}_back", axis=axis)
    )


def _set_opsets(model: onnx.ModelProto) -> None:
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _quantised(
    source: Path | onnx.ModelProto, reader: _Reader, nodes: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Return a model in 8 bits; of some nodes alone where their names are given."""
    with temporary_folder() as folder, silence():
        prepared, written = folder / "prepared.onnx", folder / "quantised.onnx"
        try:
            # Shapes are fixed, so that the inference of symbolic ones has nothing to add. Names of
            # nodes stay where nothing is optimised.
            quant_pre_process(
                source if isinstance(source, onnx.ModelProto) else str(source),
                str(prepared),
                skip_symbolic_shape=True,
                skip_optimization=nodes is not None,
            )
            quantization.quantize_static(
                str(prepared),
                str(written),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                nodes_to_quantize=nodes,
                extra_options={} if nodes is None else _FLOATING_OUTPUTS,
            )
            return onnx.load(written)
        except (*RUNTIME_ERRORS, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            raise ExportError(f"cannot be quantised ({one_line(error)})") from error
