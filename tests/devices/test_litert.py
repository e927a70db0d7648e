"""LiteRT in 8 bits, and the environment of its converter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fast_device import cpu, installed
from torch import nn

from nas.core.errors import DeviceError
from nas.core.measurement import Deployable
from nas.devices.environments import python_with

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _installed() -> None:
    installed("litert")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16, 10)).eval()


def test_in_8_bits_it_answers_nearly_the_same(network: nn.Module, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((5, *SHAPE), dtype=np.float32)
    device = cpu(runtime="litert", precision="int8")
    (file,) = device.prepare([network], SHAPE, tmp_path, images)
    (found,) = device.outputs(file, [images])
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    # The quantiser averages the ranges of images, so that single values are cut off.
    assert 0 < np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()
    measured = device.measure_files([file], SHAPE)[0]
    assert measured.environment["calibration"] == "5 images that were given"
    assert measured.environment["operators"].keys() >= {"CONV_2D", "QUANTIZE"}


def test_a_file_in_fp32_is_not_measured_as_int8(network: nn.Module, tmp_path: Path) -> None:
    (file,) = cpu(runtime="litert").prepare([network], SHAPE, tmp_path)
    with pytest.raises(DeviceError, match="no quantised operator"):
        cpu(runtime="litert", precision="int8").measure_files([file.path], SHAPE)


def test_what_it_does_not_take_is_one_line(network: nn.Module, tmp_path: Path) -> None:
    (file,) = cpu().prepare([network], SHAPE, tmp_path)
    device = cpu(runtime="litert")
    with pytest.raises(DeviceError, match="reads no ONNX files"):
        device.measure(file.path, SHAPE)
    mixed = Deployable(network, {"layers": ("int8", "fp32")})
    with pytest.raises(DeviceError, match="one of all layers"):
        device.prepare([mixed], SHAPE, tmp_path)


def test_an_environment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match="the environment of nothing's converter cannot be made"):
        python_with("nothing", ("hwnas-has-no-such-package==0",), "nothing")
    left = [each.suffix for each in (tmp_path / "hwnas" / "environments").iterdir()]
    assert left == [".lock"]
