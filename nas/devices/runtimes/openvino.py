"""OpenVINO, with any of its device plugins."""

from __future__ import annotations

import io
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nas.core.measurement import CALIBRATION_KEY, UNKNOWN_CALIBRATION, ImageArray
from nas.devices.measuring.runtime import (
    Execution,
    LoadedNetwork,
    ModelError,
    Runtime,
    check_input,
)
from nas.devices.runtimes import register

_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")
"""Types of OpenVINO's layers that multiply and add."""
_QUANTISED = ("i8", "u8")


@register("openvino")
@dataclass(frozen=True, kw_only=True)
class OpenVino(Runtime):
    """Runs ONNX files in OpenVINO, optimised for the latency of one image.

    Attributes:
        provider: Short name of a plugin: `cpu`, `gpu`, `npu`. Which there are depends on the
            machine.
    """

    package: ClassVar[str] = "openvino"
    extra: ClassVar[str | None] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    mixes_precisions: ClassVar[bool] = True
    # Without the hint the plugin calculates in bfloat16 wherever the processor can.
    constants: ClassVar[dict[str, Any]] = {
        "performance_hint": "LATENCY",
        "streams": 1,
        "float_precision": "f32",
        "pinning": False,
    }

    provider: str = "cpu"

    @classmethod
    def providers(cls) -> tuple[str, ...]:
        return tuple(sorted(name.lower() for name in _openvino().Core().available_devices))

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        core = _openvino().Core()
        model = core.read_model(io.BytesIO(path.read_bytes()))
        inputs = [
            (each.any_name, _sizes(each), each.element_type.to_string()) for each in model.inputs
        ]
        check_input(inputs, images, "f32")
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": self.constants["performance_hint"],
            "INFERENCE_PRECISION_HINT": self.constants["float_precision"],
        }
        if self.provider == "cpu":
            properties["INFERENCE_NUM_THREADS"] = execution.threads
            properties["NUM_STREAMS"] = str(self.constants["streams"])
            properties["ENABLE_CPU_PINNING"] = self.constants["pinning"]
        compiled = core.compile_model(model, self.provider.upper(), properties)
        # Where OpenVINO keeps the metadata of an ONNX file.
        metadata = dict(model.rt_info).get("framework", {})
        calibration = metadata.get(CALIBRATION_KEY)
        said = UNKNOWN_CALIBRATION if calibration is None else str(calibration.value)
        return _Compiled(compiled, images, self, execution, said)


class _Compiled(LoadedNetwork):
    def __init__(
        self,
        compiled: Any,
        images: ImageArray,
        runtime: OpenVino,
        execution: Execution,
        calibration: str,
    ) -> None:
        self._compiled, self._runtime, self._calibration = compiled, runtime, calibration
        self._execution = execution
        self._request = compiled.create_infer_request()
        self._input = _openvino().Tensor(np.ascontiguousarray(images), shared_memory=True)
        self._request.set_input_tensor(self._input)
        self._run = self._request.infer

    def infer(self) -> None:
        self._run()

    def run(self, images: ImageArray) -> ImageArray:
        self._input.data[:] = images
        self.infer()
        outputs: ImageArray = self._request.get_output_tensor(0).data.copy()
        return outputs

    def inspect(self) -> dict[str, Any]:
        plugins = list(self._compiled.get_property("EXECUTION_DEVICES"))
        if not all(name.lower().startswith(self._runtime.provider) for name in plugins):
            raise ModelError(f"runs on {plugins}, expected {self._runtime.provider.upper()}")
        facts: dict[str, Any] = {"provider": ", ".join(plugins)}
        if self._runtime.provider == "cpu":
            facts["threads"] = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        if self._execution.precision == "int8":
            facts["calibration"] = self._calibration
        operators = Counter(
            (str(node.rt_info["layerType"].value), str(node.rt_info["runtimePrecision"].value))
            for node in self._compiled.get_runtime_model().get_ops()
        )
        products = {key: n for key, n in operators.items() if key[0] in _PRODUCTS}
        quantised = any(precision in _QUANTISED for _, precision in products)
        if self._execution.precision == "int8" and not quantised:
            ran = ", ".join(" ".join(key) for key in sorted(products)) or "none"
            raise ModelError(
                f"runs no quantised operator (its products: {ran}); measure it with precision fp32"
            )
        return facts | {"operators": {" ".join(key): n for key, n in products.items()}}


def _openvino() -> Any:
    """Import OpenVINO without its usage statistics.

    They are sent by a forked process, which can hang and then keeps the measuring process's output
    open; and a measurement tells nobody of itself.
    """
    # An import of a module that is None here raises ModuleNotFoundError, for which it is prepared.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _sizes(port: Any) -> list[Any]:
    shape = port.get_partial_shape()
    return [size.get_length() if size.is_static else str(size) for size in shape]
