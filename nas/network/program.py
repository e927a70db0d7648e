"""The program of a network as `torch.export` writes it, for one image at a time."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from nas.core.errors import ExportError
from nas.network.onnx import evaluation_mode


def export_program(network: nn.Module, input_shape: tuple[int, int, int], path: Path) -> Path:
    """Write `network` as one file of `torch.export`: images `(1, C, H, W)` -> outputs.

    The network is exported in evaluation mode; its own mode is as before afterwards. The file
    appears whole or not at all.

    Args:
        network: Maps images `(N, C, H, W)` to outputs `(N, ...)`.
        input_shape: `(channels, height, width)` of one image.
        path: Of the file to write; its folder exists.

    Returns:
        `path`.

    Raises:
        ExportError: The network cannot be expressed as a program, or the file cannot be written.
    """
    parameter = next(network.parameters(), None)
    device = None if parameter is None else parameter.device
    images = torch.zeros(1, *input_shape, device=device)
    part = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        with evaluation_mode(network), torch.no_grad():
            program = torch.export.export(network, (images,))
        torch.export.save(program, part)
        part.replace(path)
    except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
        part.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{type(network).__name__}: cannot be exported with torch.export for images of shape "
            f"{tuple(images.shape)} ({reason})"
        ) from error
    return path
