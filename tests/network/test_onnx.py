from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from nas.core.errors import ExportError
from nas.network.onnx import INPUT_NAME, OUTPUT_NAME, export_onnx

SHAPE = (3, 16, 16)


class Residual(nn.Module):
    """A residual block with what networks of the search spaces hold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.norm(self.stem(images)))
        x = x + self.depthwise(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        logits: torch.Tensor = self.head(self.dropout(nn.functional.gelu(x).mean((2, 3))))
        return logits


def build() -> Residual:
    torch.manual_seed(0)
    network = Residual()
    with torch.no_grad():  # statistics of a trained network, so that folding them shows
        network(torch.randn(64, *SHAPE))
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(build(), SHAPE, tmp_path_factory.mktemp("onnx") / "net.onnx")


def test_logits_equal_the_network_s(exported: Path):
    images = np.random.default_rng(0).standard_normal((8, *SHAPE), dtype=np.float32)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    got = np.concatenate([session.run(None, {INPUT_NAME: image[None]})[0] for image in images])
    with torch.inference_mode():
        expected = build().eval()(torch.from_numpy(images)).numpy()
    assert np.abs(got - expected).max() <= 1e-4


def test_one_file_with_one_fixed_input_and_output(exported: Path):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == (INPUT_NAME, [1, *SHAPE])
    assert (logits.name, logits.shape) == (OUTPUT_NAME, [1, 10])
    assert [path.name for path in exported.parent.iterdir()] == ["net.onnx"]
    onnx.checker.check_model(onnx.load(exported), full_check=True)


def test_batch_normalisation_is_folded(exported: Path):
    operators = {node.op_type for node in onnx.load(exported).graph.node}
    assert "BatchNormalization" not in operators


def test_no_trace_of_the_source_code(exported: Path):
    content = exported.read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_network_and_random_state_are_left_as_they_were(
    exported: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
):
    network = build()
    network.norm.eval()  # a submodule in another mode keeps its own
    modes = {name: module.training for name, module in network.named_modules()}
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    level = logging.getLogger("torch.onnx").level
    again = export_onnx(network, SHAPE, tmp_path / "again.onnx")
    assert again.read_bytes() == exported.read_bytes()
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(network.state_dict()[name], weights[name]) for name in weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert logging.getLogger("torch.onnx").level == level
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_images_that_do_not_fit_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    network = build()
    with pytest.raises(ExportError, match=r"Residual: .*\(1, 4, 16, 16\).*4 channels") as caught:
        export_onnx(network, (4, 16, 16), tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert network.training
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_folder_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(ExportError, match=r"none.net.onnx: cannot be written"):
        export_onnx(nn.Flatten(), SHAPE, tmp_path / "none" / "net.onnx")
