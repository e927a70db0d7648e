"""Whether an ONNX file computes what the network computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from nas.core.errors import ExportError, first_line
from nas.network.compact import without_quantisation
from nas.network.onnx import INPUT_NAME, OUTPUT_NAME, evaluation_mode

TOLERANCE = 1e-4
"""Largest difference of an output that is put down to the order of floating-point operations."""


def max_abs_difference(
    network: nn.Module, images: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]
) -> float:
    """Return the largest absolute difference of a network's outputs from those of its deployment.

    The network runs in evaluation mode and is put back into its former mode. It sees one image at
    a time.

    Args:
        network: The network, on the processor.
        images: `(n, C, H, W)`, preprocessed.
        outputs: What the deployed network made of `images`, `(n, ...)`.
    """
    with evaluation_mode(network), torch.inference_mode():
        expected = np.concatenate([network(torch.from_numpy(i[None])).numpy() for i in images])
    return float(np.max(np.abs(expected - outputs)))


def check_parity(
    network: nn.Module, onnx_path: Path, images: npt.NDArray[np.float32], batch: int = 1
) -> float:
    """Return by how much ONNX Runtime's outputs differ from a network's, on the processor.

    Args:
        network: On the processor; nothing is quantised in it, as in the file.
        onnx_path: Its ONNX file, with the input `images` and the output `outputs`.
        images: `(n, C, H, W)`, preprocessed.
        batch: Images that the file sees at a time.

    Raises:
        ExportError: It is larger than `TOLERANCE`, an output is not a number, or the file is not
            valid ONNX.
    """
    with without_quantisation(network):
        difference = max_abs_difference(
            network, images, onnx_outputs(onnx_path, images, batch=batch)
        )
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{onnx_path.name}: outputs differ from the network's by {difference:.3g}, expected "
            f"{TOLERANCE:g} or less; an operation of the network is exported differently"
        )
    return difference


def onnx_outputs(
    path: Path, images: npt.NDArray[Any], name: str = INPUT_NAME, batch: int = 1
) -> npt.NDArray[np.float32]:
    """Return what ONNX Runtime makes of images, `batch` at a time, on the processor.

    `name` is that of the file's input.

    Raises:
        ExportError: The file is not valid ONNX.
    """
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.name}: not a valid ONNX file: {first_line(error)}") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = (images[start : start + batch] for start in range(0, len(images), batch))
    return np.concatenate([session.run([OUTPUT_NAME], {name: part})[0] for part in parts])
