"""The files of a network, ONNX's and that of `torch.export`, for one image at a time or several."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from nas.core.errors import ExportError, HwnasError, first_line, one_line
from nas.core.files import write_bytes_atomically
from nas.network.compact import without_quantisation

INPUT_NAME = "images"
OUTPUT_NAME = "outputs"
LINEAR = "linear_layer_"
"""In the names of operators that are linear layers."""
OPSET = 20
"""The first operator set with GELU as one operator; a small transformer runs 8 % faster with it."""


def export_onnx(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    path: Path,
    *,
    dynamic_batch: bool = False,
) -> Path:
    """Write `network` as one ONNX file: `images` `(1, C, H, W)` -> `outputs` `(1, ...)`.

    The network is exported in evaluation mode; its own mode and weights, and the global random
    state, are as before afterwards. The same network gives the same bytes. The file holds no
    trace of the source code that it was made from, and appears whole or not at all.

    Args:
        network: Maps images `(N, C, H, W)` to outputs `(N, ...)`.
        input_shape: `(channels, height, width)` of one image.
        path: Of the file to write; its folder exists.
        dynamic_batch: Whether the file takes any number of images: `(batch, C, H, W)`.

    Returns:
        `path`.

    Raises:
        ExportError: The network cannot be expressed in ONNX, or the file cannot be written.
    """
    # A dimension of size 1 is taken for a constant when a network is traced.
    images = _zeros_for(network, input_shape, batch=2 if dynamic_batch else 1)
    names = ([INPUT_NAME], [OUTPUT_NAME])
    return write_model(convert(network, (images,), names, dynamic_batch=dynamic_batch), path)


def export_program(network: nn.Module, input_shape: tuple[int, int, int], path: Path) -> Path:
    """Write `network` as one file of `torch.export`; arguments and result as of `export_onnx`.

    Raises:
        ExportError: The network cannot be expressed as a program, or the file cannot be written.
    """
    images = _zeros_for(network, input_shape)
    part = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        with evaluation_mode(network), without_quantisation(network), torch.no_grad():
            program = torch.export.export(network, (images,))
        torch.export.save(program, part)
        part.replace(path)
    except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
        part.unlink(missing_ok=True)
        raise ExportError(
            f"{type(network).__name__}: cannot be exported with torch.export for images of shape "
            f"{tuple(images.shape)} ({one_line(error)})"
        ) from error
    return path


def image_shape(path: Path) -> tuple[int, int, int]:
    """Return `(channels, height, width)` of the only input of an ONNX file.

    Raises:
        ExportError: It is no ONNX file, or its input is not one image of a fixed shape.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except OSError as error:
        raise ExportError(f"cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ExportError(f"is no ONNX file ({error})") from error
    weights = {each.name for each in graph.initializer}
    inputs = {each.name: each.type.tensor_type for each in graph.input if each.name not in weights}
    if len(inputs) != 1:
        names = ", ".join(map(repr, inputs)) or "none"
        raise ExportError(f"has {len(inputs)} inputs ({names}), expected one image")
    ((name, kind),) = inputs.items()
    shape = [size.dim_value or size.dim_param or "?" for size in kind.shape.dim]
    fixed = [size for size in shape if isinstance(size, int)]
    if len(fixed) != 4 or len(shape) != 4 or fixed[0] != 1:
        word = "shape" if len(fixed) == len(shape) else "dynamic shape"
        raise ExportError(
            f"input {name!r} has the {word} {shape}, expected the fixed shape "
            "[1, channels, height, width]; export it with fixed sizes and batch 1"
        )
    return fixed[1], fixed[2], fixed[3]


def interface(path: Path) -> tuple[str, str]:
    """Return inputs and outputs of an ONNX file as text: `images` float32 (1, 3, 32, 32)."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {each.name for each in graph.initializer}
    given = [each for each in graph.input if each.name not in weights]
    inputs, outputs = (", ".join(map(_typed, values)) for values in (given, graph.output))
    return inputs, outputs


def _typed(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    sizes = ", ".join(str(size.dim_param or size.dim_value) for size in tensor.shape.dim)
    return f"`{value.name}` {kind} ({sizes})"


def write_model(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model as one file, which appears whole or not at all; return `path`.

    Raises:
        ExportError: The file cannot be written.
    """
    try:
        write_bytes_atomically(path, model.SerializeToString(deterministic=True))
    except HwnasError as error:
        raise ExportError(str(error)) from error
    return path


def _zeros_for(network: nn.Module, input_shape: tuple[int, int, int], batch: int = 1) -> Tensor:
    parameter = next(network.parameters(), None)
    return torch.zeros(batch, *input_shape, device=None if parameter is None else parameter.device)


def convert(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    names: tuple[Sequence[str], Sequence[str]],
    *,
    dynamic_batch: bool = False,
) -> onnx.ModelProto:
    """Return `network` as an ONNX model, in evaluation mode and without traces of its source.

    It is traced with `inputs`, whose shapes are the model's, but for the first dimension of each
    where the batch is dynamic; `names` are of inputs and outputs.

    Raises:
        ExportError: The network cannot be expressed in ONNX.
    """
    batch = torch.export.Dim("batch")
    with evaluation_mode(network), without_quantisation(network), silence(), torch.no_grad():
        try:
            # Without the exporter's own optimisation batch normalisations stay unfolded and come
            # out as operators that ONNX Runtime does not fuse: networks then run 5 to 10 times
            # slower.
            program = torch.onnx.export(
                network,
                inputs,
                dynamo=True,
                optimize=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(names[0]),
                output_names=list(names[1]),
                dynamic_shapes=tuple({0: batch} for _ in inputs) if dynamic_batch else None,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error
            # The exporter's own message is a page of advice; what went wrong is at the chain's end.
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ExportError(
                f"{type(network).__name__}: cannot be exported to ONNX for images of shape "
                f"{tuple(inputs[0].shape)}: {type(cause).__name__}: {first_line(cause)}"
            ) from error
    assert program is not None  # only the TorchScript exporter returns nothing
    model = program.model_proto
    _name_linear_layers(model.graph)
    _strip_metadata(model.graph)
    return model


@contextlib.contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Let nothing be logged, warned of or printed in a `with` block.

    PyTorch writes its graphs onto the console where tracing fails, which the error says in a line;
    ONNX Runtime's quantiser warns of every weight without a channel axis.
    """
    disabled, sink = logging.root.manager.disable, io.StringIO()
    logging.disable()
    try:
        with (
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _name_linear_layers(graph: onnx.GraphProto) -> None:
    """Let the products of linear layers be told from others, which have constants as well.

    One with batch normalisation behind it is exported as one operator, which no longer says where
    it comes from.
    """
    constants = {each.name for each in graph.initializer}
    for node in graph.node:
        origin = {each.key: each.value for each in node.metadata_props}
        if node.op_type not in ("Gemm", "MatMul"):
            continue  # such as the addition of the bias
        linear = "'aten.linear.default'" in origin.get("pkg.torch.onnx.class_hierarchy", "")
        if linear or (node.op_type == "Gemm" and node.input[1] in constants):
            node.name = f"{LINEAR}{node.name}"


def _strip_metadata(graph: onnx.GraphProto) -> None:
    # The exporter notes stack traces, which name files of the machine that it ran on.
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for item in (graph, *graph.node, *values):
        item.ClearField("metadata_props")
    for attribute in (a for node in graph.node for a in node.attribute):
        # Even looking into a graph that is not there would make an attribute hold one.
        if attribute.HasField("g"):
            _strip_metadata(attribute.g)
        for inner in attribute.graphs:
            _strip_metadata(inner)
