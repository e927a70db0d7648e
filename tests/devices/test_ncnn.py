"""Files of ncnn's converter that would be measured though they are wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from fast_device import cpu, installed
from torch import nn

from nas.core.errors import DeviceError

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _installed() -> None:
    installed("ncnn")


class Cropped(nn.Module):
    """pnnx cuts one of the two axes only, and reports success."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 1:, 1:]


class Flipped(nn.Module):
    """pnnx writes a file that computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(3)


class FiveAxes(nn.Module):
    """ncnn has four axes at most."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(1, 3, 4, 4, 4, 4) * torch.arange(4.0).view(4, 1, 1)
        return x.sum((1, 2)).reshape(1, -1)


@pytest.mark.parametrize("network", [Cropped(), Flipped(), FiveAxes()])
def test_a_network_that_it_computes_otherwise_is_refused(network: nn.Module) -> None:
    with pytest.raises(DeviceError, match=r"(ncnn|pnnx) (returns|computes|cannot)") as caught:
        cpu(runtime="ncnn").measure(network.eval(), SHAPE)
    assert "\n" not in str(caught.value)


def test_other_outputs_than_those_in_the_file_are_refused(tmp_path: Path) -> None:
    device, network = cpu(runtime="ncnn"), nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    (file,) = device.prepare([network.eval()], SHAPE, tmp_path)
    changed = tmp_path / "changed.ncnn"
    with zipfile.ZipFile(file.path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "facts.json":
                facts = json.loads(content)
                facts["sample"][3] += 0.1
                content = json.dumps(facts).encode()
            new.writestr(name, content)
    device.measure_files([file.path], SHAPE)
    with pytest.raises(DeviceError, match=r"changed.ncnn: .*something else"):
        device.measure_files([changed], SHAPE)


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    (wrong := tmp_path / "wrong.onnx").write_bytes(b"no network")
    with pytest.raises(DeviceError, match=r"wrong.onnx") as caught:
        cpu(runtime="ncnn").measure(wrong, SHAPE)
    assert "\n" not in str(caught.value)
