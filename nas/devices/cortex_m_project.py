"""A C++ project of a network in 8 bits, for TensorFlow Lite Micro and gcc-arm-none-eabi.

The project holds the network as a C array, a main file that runs it once and prints what it
answers, and a Makefile for the board MPS2 AN386 (Cortex-M4), which QEMU has. The sources of
TensorFlow Lite Micro are not part of it: `TFLM=FOLDER` says where they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.core.errors import ExportError

_HERE = Path(__file__).with_name("cortex_m")
_VALUES_A_LINE = 16
_PLACEHOLDER = re.compile(r"@([a-z_]+)@")
_SOURCES = {
    "average_pool_2d": "pooling",
    "max_pool_2d": "pooling",
    "mean": "reduce",
    "sum": "reduce",
    "relu": "activations",
    "relu6": "activations",
}
"""Kernels whose file has another name than the operator."""


def write_project(
    model: bytes,
    operators: Sequence[str],
    arena_bytes: int,
    image: npt.NDArray[np.int8],
    folder: Path,
) -> Path:
    """Write the project into a folder, which is made, and return the folder.

    Args:
        model: A `.tflite` file in 8 bits.
        operators: That it has, as the schema of TensorFlow Lite calls them: `CONV_2D`, ...
        arena_bytes: Memory that the main file sets aside for it.
        image: What the main file runs it on, as the network takes it.
        folder: Of the project.

    Raises:
        ExportError: The folder holds other files, or cannot be written.
    """
    names = sorted(set(operators))
    kernels = sorted({_SOURCES.get(n.lower(), n.lower().removesuffix("_2d")) for n in names})
    values = {
        "model": _array(np.frombuffer(model, np.uint8)),
        "model_bytes": str(len(model)),
        "image": _array(image.ravel()),
        "image_values": str(image.size),
        "arena_bytes": str(arena_bytes),
        "operators": "\n".join(f"  resolver.Add{method(name)}();" for name in names),
        "operator_count": str(len(names)),
        "kernels": " ".join(kernels),
    }
    files = {path.name: path for path in sorted(_HERE.iterdir())}
    if folder.exists() and (
        others := {p.name for p in folder.iterdir()} - files.keys() - {"build"}
    ):
        got = ", ".join(sorted(others))
        raise ExportError(f"{folder}: holds {got}, expected a new or empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            text = path.read_text("utf-8")
            text = _PLACEHOLDER.sub(lambda found: values[found[1]], text)
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error})") from error
    return folder


def method(operator: str) -> str:
    """Return an operator as the methods of TensorFlow Lite Micro call it: `CONV_2D` is `Conv2D`."""
    return "".join(
        part if re.fullmatch(r"\dD", part) else part.capitalize() for part in operator.split("_")
    )


def _array(values: npt.NDArray[np.integer]) -> str:
    lines = [
        ", ".join(map(str, values[start : start + _VALUES_A_LINE]))
        for start in range(0, len(values), _VALUES_A_LINE)
    ]
    return ",\n".join(f"    {line}" for line in lines)
