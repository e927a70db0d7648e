"""MNN, Alibaba's runtime for phones and boards, on the processor."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.errors import ExportError, last_lines
from nas.core.measurement import ImageArray
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

# `MNN.tools` sends reports and installs packages when it is imported; the converter beneath it
# does neither. In a process of its own, because it writes to the console and may crash.
_CONVERT = "import sys, MNN, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
_CONVERT_SECONDS = 300.0
_BACKENDS = {0: "CPU", 13: "CPU with vector extensions"}
"""`MNNForwardType` of `include/MNN/MNNForwardType.h`."""
_BACKENDS_INFO = 2
"""`Interpreter::BACKENDS` of `include/MNN/Interpreter.hpp`."""


@register("mnn")
@dataclass(frozen=True, kw_only=True)
class Mnn(Runtime):
    """Runs files that MNN's own converter makes of ONNX files."""

    package: ClassVar[str] = "MNN"
    extra: ClassVar[str | None] = "mnn"
    takes: ClassVar[str] = "mnn"
    # MNN's own default lets the processor calculate in half precision.
    constants: ClassVar[dict[str, Any]] = {"backend": "CPU", "precision_mode": "high"}

    def prepare(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        images: ImageArray | None,
        execution: Execution,
    ) -> Path:
        del images
        self.version()  # which fails where MNN, whose converter is needed here, is missing
        path = stem.with_suffix(f".{self.takes}")
        _convert(self.onnx_of(model, input_shape, stem, execution), path)
        return path

    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        import MNN

        interpreter = MNN.Interpreter(str(path))
        session = interpreter.createSession(
            {
                "backend": self.constants["backend"],
                "precision": self.constants["precision_mode"],
                "numThread": execution.threads,
            }
        )
        inputs = interpreter.getSessionInputAll(session)
        shapes = [
            (name, [n if n > 0 else "?" for n in tensor.getShape()], "float")
            for name, tensor in inputs.items()
        ]
        check_input(shapes, images, "float")
        return _MnnSession(execution.threads, interpreter, session, images)


def _convert(source: Path, path: Path) -> None:
    files = ("--modelFile", str(source), "--MNNModel", str(path))
    arguments = ("-f", "ONNX", *files, "--bizCode", "hwnas")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CONVERT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"MNN did not convert it within {_CONVERT_SECONDS:g} s") from error
    if done.returncode or not path.is_file():
        words = last_lines(done.stdout + done.stderr) or f"exit {done.returncode}"
        raise ExportError(f"MNN cannot convert it ({words[:300]})")


class _MnnSession(LoadedNetwork):
    def __init__(self, threads: int, interpreter: Any, session: Any, images: ImageArray) -> None:
        self._threads, self._interpreter, self._session = threads, interpreter, session
        self._images = np.ascontiguousarray(images)
        self._source = _tensor(self._images)
        self._input = interpreter.getSessionInput(session)
        self._run = interpreter.runSession

    def infer(self) -> None:
        # MNN lays later values over its input, so that every run begins with a copy.
        self._input.copyFrom(self._source)
        code = self._run(self._session)
        if code:
            raise ModelError(f"MNN cannot run it (error code {code})")

    def run(self, images: ImageArray) -> ImageArray:
        self._images = np.ascontiguousarray(images)
        self._source = _tensor(self._images)
        self.infer()
        output = self._interpreter.getSessionOutput(self._session)
        values = np.zeros(output.getShape(), np.float32)
        target = _tensor(values)
        output.copyToHostTensor(target)
        return np.array(target.getNumpyData(), np.float32).reshape(values.shape)

    def inspect(self) -> dict[str, Any]:
        kind = self._interpreter.getSessionInfo(self._session, _BACKENDS_INFO)
        if kind not in _BACKENDS:
            raise ModelError(f"runs on MNN's backend {kind}, expected the CPU")
        return {"provider": _BACKENDS[kind], "threads": self._threads}


def _tensor(values: ImageArray) -> Any:
    import MNN

    return MNN.Tensor(values.shape, MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe)
