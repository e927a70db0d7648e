"""Networks that no device should measure: one line each, whatever the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fast_device import cpu, installed
from onnx_files import SHAPE, ModelFactory
from torch import nn

from nas.core.errors import DeviceError
from nas.core.measurement import Device


@pytest.fixture(params=["onnxruntime", "openvino", "mnn"])
def device(request: pytest.FixtureRequest) -> Device:
    return cpu(runtime=installed(request.param))


def assert_one_line(device: Device, model: Path | nn.Module, expected: str) -> None:
    with pytest.raises(DeviceError, match=expected) as caught:
        device.measure_many([model], SHAPE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_dynamic_shape(device: Device, conv_model: ModelFactory):
    model = conv_model(1, ("batch", *SHAPE))
    assert_one_line(device, model, r"dynamic shape.*export it with fixed sizes and batch 1")


def test_unsupported_operator(device: Device, unknown_operator_model: Path):
    assert_one_line(device, unknown_operator_model, "unknown.onnx.*cannot .* it.*Frobnicate")


def test_several_inputs(device: Device, two_input_model: Path):
    assert_one_line(device, two_input_model, r"has 2 inputs")


def test_missing_file(device: Device, tmp_path: Path):
    assert_one_line(device, tmp_path / "missing.onnx", "missing.onnx: got no such file")


def test_folder_is_no_file(device: Device, tmp_path: Path):
    assert_one_line(device, tmp_path, "got no such file")


class Branching(nn.Module):
    """Decides by its values, which no exporter can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_network_that_cannot_be_traced():
    for runtime in ("onnxruntime", "torch"):
        assert_one_line(
            cpu(runtime=runtime), Branching(), "network 0: Branching: cannot be exported"
        )


def test_program_with_a_dynamic_shape(tmp_path: Path):
    network, images = nn.Conv2d(8, 4, 3).eval(), torch.zeros(2, *SHAPE)
    shapes = {"input": {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "dynamic.pt2")
    assert_one_line(cpu(runtime="torch"), tmp_path / "dynamic.pt2", "dynamic shape.*export it with")
