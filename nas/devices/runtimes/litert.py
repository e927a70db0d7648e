"""LiteRT, Google's runtime for phones and boards (before: TensorFlow Lite), on the processor."""

from __future__ import annotations

import functools
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.errors import DeviceError, ExportError
from nas.core.files import temporary_folder
from nas.core.measurement import CALIBRATION_KEY, INT8, UNKNOWN_CALIBRATION, ImageArray
from nas.devices.environments import python_with
from nas.devices.measuring.process import MeasuringProcess
from nas.devices.measuring.runtime import (
    Execution,
    LoadedNetwork,
    ModelError,
    Runtime,
    check_input,
)
from nas.devices.runtimes import register

if TYPE_CHECKING:
    from torch import nn

CONVERTER = ("litert-torch==0.10.0", "litert-converter==0.5.0", "ai-edge-quantizer==0.10.0")
"""Exact, as a network that another release converts is another network to measure."""
_CONVERT_SECONDS = 600.0
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")


@register("litert")
@dataclass(frozen=True, kw_only=True)
class LiteRt(Runtime):
    """Runs what LiteRT's converter makes of networks, with XNNPACK where it has an operator.

    The converter takes programs of `torch.export`, so the network itself is needed, not its ONNX
    file. Its packages do not go with ours; they have an environment of their own, which is made
    when a network is first converted.
    """

    package: ClassVar[str] = "ai_edge_litert"
    extra: ClassVar[str | None] = "litert"
    takes: ClassVar[str] = "tflite"
    takes_onnx: ClassVar[bool] = False
    precisions: ClassVar[tuple[str, ...]] = ("fp32", INT8)
    constants: ClassVar[dict[str, Any]] = {"converter": " ".join(CONVERTER)}

    def prepare(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        images: ImageArray | None,
        execution: Execution,
    ) -> Path:
        if isinstance(model, Path):
            raise ExportError(
                "runtime litert: got a file, expected the network as an nn.Module, or a .tflite "
                "file; LiteRT's converter reads no ONNX files"
            )
        int8 = execution.precision == INT8
        return convert(model, input_shape, stem.with_suffix(f".{self.takes}"), images, int8=int8)

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=execution.threads)
        interpreter.allocate_tensors()
        inputs = [
            (each["name"], each["shape_signature"].tolist(), each["dtype"].__name__)
            for each in interpreter.get_input_details()
        ]
        check_input(_with_free_sizes(inputs), images, "float32")
        said = UNKNOWN_CALIBRATION
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                said = archive.read(CALIBRATION_KEY).decode()
        return _Interpreted(interpreter, images, execution, said)


def convert(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    path: Path,
    images: ImageArray | None,
    *,
    int8: bool,
    integers: bool = False,
) -> Path:
    """Write what LiteRT's converter makes of a network to `path`, and return that.

    Args:
        model: The network.
        input_shape: `(channels, height, width)`.
        path: Of the file to write.
        images: For the ranges of activations in 8 bits; see `Device.prepare`.
        int8: Whether weights and activations have 8 bits.
        integers: Whether images, channels last, and outputs have 8 bits as well.

    Raises:
        ExportError: It cannot be converted.
    """
    from nas.network.onnx import export_program
    from nas.network.quantisation import calibration_batch

    origin = None
    with temporary_folder() as folder:
        asked: dict[str, Any] = {"shape": [1, *input_shape], "path": str(path), "images": None}
        asked["program"] = str(export_program(model, input_shape, folder / "network.pt2"))
        if int8:
            batch, origin = calibration_batch(input_shape, images)
            np.save(folder / "images.npy", batch)
            asked |= {"images": str(folder / "images.npy"), "integers": integers}
        try:
            _converter_process().ask("convert", about="LiteRT's converter", **asked)
        except DeviceError as error:
            _converter_process().close()  # it may have died
            _converter_process.cache_clear()
            raise ExportError(str(error)) from error
    if origin is not None:
        # Files that belong to a network are in a ZIP archive behind it; LiteRT's metadata.
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(CALIBRATION_KEY, origin)
    return path


@functools.cache
def _converter_process() -> MeasuringProcess:
    """Return the process that converts networks, which lasts as long as this one."""
    python = python_with("litert", CONVERTER, "0.9 GB")
    # Isolated: this folder has modules of the same names, and the paths of this process others.
    script = str(Path(__file__).with_name("litert_converter.py"))
    return MeasuringProcess(timeout_seconds=_CONVERT_SECONDS, command=(str(python), "-I", script))


def _with_free_sizes(
    inputs: list[tuple[str, list[int], str]],
) -> list[tuple[str, list[Any], str]]:
    """Return inputs whose free sizes, -1 in a file, are no integers."""
    return [(name, [s if s >= 0 else "?" for s in shape], kind) for name, shape, kind in inputs]


class _Interpreted(LoadedNetwork):
    def __init__(
        self, interpreter: Any, images: ImageArray, execution: Execution, calibration: str
    ) -> None:
        self._interpreter, self._execution = interpreter, execution
        self._calibration = calibration
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]
        interpreter.set_tensor(self._input, images)

    def infer(self) -> None:
        self._interpreter.invoke()

    def run(self, images: ImageArray) -> ImageArray:
        self._interpreter.set_tensor(self._input, images)
        self.infer()
        outputs: ImageArray = self._interpreter.get_tensor(self._output)
        return outputs

    def inspect(self) -> dict[str, Any]:
        operators = Counter(each["op_name"] for each in self._interpreter._get_ops_details())
        # A delegate runs a part of the network; without one, LiteRT's own kernels run all of it.
        delegates = operators.pop("DELEGATE", 0)
        facts: dict[str, Any] = {
            "provider": "XNNPACK" if delegates else "CPU",
            "threads": self._execution.threads,
            "delegates": delegates,
            "operators": dict(operators),
        }
        if self._execution.precision == INT8:
            facts["calibration"] = self._calibration
            details = self._interpreter.get_tensor_details()
            kinds = {each["index"]: each["dtype"] for each in details}
            quantised = sum(
                kinds[each["inputs"][1]] is np.int8
                for each in self._interpreter._get_ops_details()
                if each["op_name"] in _PRODUCTS
            )
            if not quantised:
                raise ModelError("runs no quantised operator; measure it with precision fp32")
        return facts
