"""Files as a device runs them: their errors, their sizes, and their latency side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from recipes import splits, test_split
from torch import nn

from nas import devices
from nas.core.measurement import ImageArray
from nas.network.onnx import export_onnx
from nas.network.quantisation import CALIBRATION_IMAGES, quantise
from nas.network.trained import Preprocessing


def normalised(pixels: np.ndarray) -> ImageArray:
    """Return images as networks take them."""
    images: ImageArray = Preprocessing.of(splits().train)(torch.from_numpy(pixels)).numpy()
    return images


def calibration_images() -> ImageArray:
    """Return training images from which ranges are taken."""
    return normalised(splits().train.sample(CALIBRATION_IMAGES, 0).pixels[:])


def written(network: nn.Module, path: Path, layers: Sequence[str] = ()) -> Path:
    """Write a network as ONNX, its layers in precisions of their own where they are given."""
    shape = splits().input_shape
    plain = export_onnx(network, shape, path.with_suffix(".fp32.onnx"))
    return quantise(plain, shape, path, calibration_images(), layers) if layers else plain


def error_of(path: Path) -> float:
    """Return the error on the test split, in percent, of a file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name, test = session.get_inputs()[0].name, test_split()
    images = normalised(test.pixels[:])
    found = [session.run(None, {name: images[i : i + 1]})[0].argmax() for i in range(len(images))]
    return 100 * float(np.mean(np.array(found) != test.targets))


def latencies_ms(paths: Sequence[Path]) -> list[tuple[float, float]]:
    """Return latency and half of its 95 % interval of files that take turns on one thread."""
    device = devices.get("cpu", threads=1)
    measured = device.measure_files(list(paths), splits().input_shape)
    return [(each.latency_ms, each.ci_ms) for each in measured]
