"""TensorFlow Lite Micro on this machine: what arena a network needs, and what it answers.

Its package runs a network with the kernels that it has for every processor, and its recording
allocator says what the arena was used for. It writes that to the standard error stream, and ends
the process where it meets what it does not expect, so that it runs in a process of its own: this
file is the program as well. Structures have pointers of 64 bits here and of 32 on a
microcontroller, which makes the part that is allocated at the start larger here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import DeviceError, last_lines
from nas.core.files import temporary_folder
from nas.core.host import child_environment
from nas.core.measurement import ImageArray
from nas.devices.measuring.runtime import installed_version

EXTRA = "mcu"
_ARENA_BYTES = 64 << 20
"""More than microcontrollers have; the figures do not depend on it."""
_SECONDS = 600.0
_RECORDED = re.compile(r"Arena allocation (head|tail) (\d+) bytes")


@dataclass(frozen=True)
class Arena:
    """What TensorFlow Lite Micro has allocated for a network.

    Attributes:
        head_bytes: Of activations and scratch buffers, which the memory planner lets share memory.
        tail_bytes: Of structures and buffers that last as long as the network.
    """

    head_bytes: int
    tail_bytes: int


def version() -> str:
    """Return the version of the package.

    Raises:
        DeviceError: It is not installed.
    """
    return installed_version("tflite_micro", EXTRA)


def arena(path: Path, input_shape: tuple[int, int, int]) -> Arena:
    """Return the arena of a network, after an inference.

    Args:
        path: Of a `.tflite` file in 8 bits that takes one image, channels last.
        input_shape: `(channels, height, width)` of the image.

    Raises:
        DeviceError: TensorFlow Lite Micro cannot run it.
    """
    said = _run(path, np.zeros((1, *input_shape), np.float32))[1]
    sizes = {name: int(size) for name, size in _RECORDED.findall(said)}
    return Arena(sizes["head"], sizes["tail"])


def outputs(path: Path, images: ImageArray) -> ImageArray:
    """Return what a network answers to normalised images, `(n, C, H, W)`, one at a time.

    Raises:
        DeviceError: TensorFlow Lite Micro cannot run it.
    """
    return _run(path, images)[0]


def operators(path: Path) -> list[str]:
    """Return the operators of a `.tflite` file, as the schema calls them: `CONV_2D`, ...

    Raises:
        DeviceError: The package is not installed.
    """
    version()
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    codes = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
    return [names[code] for code in codes]


def _run(path: Path, images: ImageArray) -> tuple[ImageArray, str]:
    """Run a network; return its outputs and what was written to standard error."""
    version()
    with temporary_folder() as folder:
        given, answered = folder / "images.npy", folder / "outputs.npy"
        np.save(given, images)
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path), str(given), str(answered)],
            capture_output=True,
            text=True,
            errors="replace",
            env=child_environment(),
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            said = last_lines(done.stderr) or f"exit {done.returncode}"
            raise DeviceError(f"{path}: TensorFlow Lite Micro cannot run it ({said[:300]})")
        return np.load(answered), done.stderr


def main(model: str, images: str, answered: str) -> None:
    """Run a network on a file of images and write its outputs to another; both are NumPy's."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(model, arena_size=_ARENA_BYTES)
    batch = np.load(images).transpose(0, 2, 3, 1)
    details = interpreter.get_input_details(0)
    if tuple(details["shape"]) != (1, *batch.shape[1:]) or details["dtype"] is not np.int8:
        got = f"{np.dtype(details['dtype'])} of shape {details['shape'].tolist()}"
        sys.exit(f"takes {got}, expected int8 of shape {[1, *batch.shape[1:]]}")
    scale, zero = _linear(details)
    pixels = np.clip(np.rint(batch / scale) + zero, -128, 127).astype(np.int8)
    scale, zero = _linear(interpreter.get_output_details(0))
    found = []
    for image in pixels:
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        found.append(scale * (interpreter.get_output(0).astype(np.float32) - zero))
    np.save(answered, np.concatenate(found))
    interpreter.print_allocations()


def _linear(details: dict[str, Any]) -> tuple[np.float32, int]:
    """Return scale and zero point of a tensor."""
    parameters = details["quantization_parameters"]
    return np.float32(parameters["scales"][0]), int(parameters["zero_points"][0])


if __name__ == "__main__":
    main(*sys.argv[1:])
