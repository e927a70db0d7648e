"""ExecuTorch in 8 bits, and its threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fast_device import cpu, installed
from torch import nn

from nas.core.errors import DeviceError

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _installed() -> None:
    installed("executorch")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16, 10)).eval()


def test_in_8_bits_it_answers_nearly_the_same(network: nn.Module, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((5, *SHAPE), dtype=np.float32)
    device = cpu(runtime="executorch", precision="int8", threads=2)
    (file,) = device.prepare([network], SHAPE, tmp_path, images)
    (found,) = device.outputs(file, [images])
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert 0 < np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()
    environment = device.measure_files([file], SHAPE)[0].environment
    assert environment["calibration"] == "5 images that were given"
    assert environment["threads"] == 2


def test_a_file_in_fp32_is_not_measured_as_int8(network: nn.Module, tmp_path: Path) -> None:
    (file,) = cpu(runtime="executorch").prepare([network], SHAPE, tmp_path)
    with pytest.raises(DeviceError, match="quantised"):
        cpu(runtime="executorch", precision="int8").measure_files([file.path], SHAPE)
