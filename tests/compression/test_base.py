"""A traced network in a folder, which stands for the module that it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bases import Net
from torch import nn
from torch.nn.utils import prune

import search_spaces
from nas.compression.base import RECORD, WEIGHTS, Base, images
from nas.core.errors import ConfigError, HwnasError
from nas.network.space import SearchSpace

SHAPE = (1, 12, 12)


class Masked(nn.Module):
    """Reads a buffer that is in no state_dict, and a constant that JSON has no form for."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(144, 6), nn.Linear(6, 4)
        self.register_buffer("mask", torch.arange(6) > 3, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x.flatten(1)).masked_fill(self.mask, float("-inf"))
        return self.head(torch.softmax(x, 1))


class Unusual(nn.Module):
    """Has tensors and functions as people write them, not only as PyTorch's own networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.randn(6))
        self.mean = torch.tensor([0.5])
        both = torch.randn(2, 6)
        self.register_buffer("first", both[0])
        self.register_buffer("second", both[1])
        self.register_buffer("short", torch.randn(6).bfloat16())
        self.fc, self.head, self.act = nn.Linear(144, 6), nn.Linear(6, 4), nn.Hardtanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc((x.flatten(1) - self.mean) * torch.tensor([2.0]))
        x = nn.functional.hardsigmoid(x) * self.answer + self.first * self.second + self.short
        return self.head(self.act(x + x.new_zeros(1)))


def pruned() -> nn.Module:
    network = Net(1, 4)
    prune.l1_unstructured(network.hidden, "weight", 0.5)
    return network


def space_of(folder: Path, input_shape: tuple[int, ...] = SHAPE) -> SearchSpace:
    return search_spaces.get("compressed", input_shape=input_shape, num_classes=4, base=str(folder))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return Base.of(Net(1, 4), SHAPE).save(tmp_path)


@pytest.mark.parametrize("module", [Net(1, 4), Masked(), Unusual()])
def test_what_was_saved_is_the_module(module: nn.Module, tmp_path: Path) -> None:
    module.train()
    folder = Base.of(module, SHAPE).save(tmp_path)
    assert module.training, "the user's module stays as it is"
    assert Base.of(module, SHAPE).save(tmp_path) == folder, "the same module has the same folder"
    space = space_of(folder)
    network = space.build(space.references()["base"]).eval()
    x = images(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(network(x), module.eval()(x), rtol=0, atol=1e-6)
        assert torch.isfinite(network(x)).all()


def test_a_compressed_network_is_a_base_again(saved: Path, tmp_path: Path) -> None:
    choices = {"channels": (1.0, 0.5), "ranks": (1.0, 0.5), "precisions": ("fp32",)}
    first = search_spaces.get(
        "compressed", input_shape=SHAPE, num_classes=4, base=str(saved), **choices
    )
    smaller = first.build([1] * len(first.genes)).eval()
    again = space_of(Base.of(smaller, SHAPE).save(tmp_path))
    x = images(SHAPE)
    with torch.no_grad():
        same = again.build(again.references()["base"]).eval()(x)
        torch.testing.assert_close(same, smaller(x), rtol=0, atol=1e-6)


def test_functions_are_part_of_what_a_base_is_known_by(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 4))
    relu = Base.of(network, SHAPE)
    network[2] = nn.GELU()
    gelu = Base.of(network, SHAPE)
    assert relu.sha256 != gelu.sha256
    spaces = [space_of(each.save(tmp_path)) for each in (relu, gelu)]
    assert spaces[0].space_id != spaces[1].space_id
    assert spaces[0].initial_sources != spaces[1].initial_sources
    assert Base.load(relu.save(tmp_path), SHAPE).sha256 == relu.sha256


def test_weights_that_are_computed_are_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"parametri[sz]ation"):
        Base.of(pruned(), SHAPE)
    with pytest.raises(ConfigError, match=r"parametri[sz]ation"):
        Base.of(nn.utils.parametrizations.weight_norm(nn.Linear(144, 4)), (144,))
    with pytest.raises(ConfigError, match="base_weights"):
        search_spaces.get(
            "compressed", input_shape=SHAPE, num_classes=4, base=str(saved), base_weights="x"
        )


def test_images_of_another_shape_are_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(1, 12, 12\)"):
        space_of(saved, (1, 8, 8))


def test_a_file_runs_functions_of_tensors_only(saved: Path, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    for target in (
        "torch.load",
        "operator.call",
        "Tensor.__reduce_ex__",
        "os.system",
        "math.__loader__",
    ):
        record = json.loads((saved / RECORD).read_text())
        layer = next(layer for layer in record["layers"] if layer["calls"])
        layer["calls"] = [{"target": target, "arguments": {"0": str(stolen)}}]
        (saved / RECORD).write_text(json.dumps(record))
        with pytest.raises(HwnasError, match=target.replace(".", r"\.")):
            space_of(saved)


def test_damaged_files_are_named(saved: Path) -> None:
    whole = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(whole[:-8])
    with pytest.raises(HwnasError, match=WEIGHTS):
        space_of(saved)
    (saved / WEIGHTS).write_bytes(whole)
    record = (saved / RECORD).read_text()
    (saved / RECORD).write_text(record.replace('"Conv2d"', '"Conv9d"'))
    with pytest.raises(HwnasError, match="Conv9d"):
        space_of(saved)


def test_a_folder_that_was_not_written_to_its_end_is_written_again(tmp_path: Path) -> None:
    shape = {"input_shape": (1, 8, 8), "num_classes": 10}
    kept = search_spaces.get("compressed", **shape, base="bases:net_1_8_8_10").with_base_in(
        tmp_path
    )
    assert not list(tmp_path.iterdir())
    Path(kept.base).mkdir()
    kept.save_base()
    again = search_spaces.get("compressed", **shape, base=kept.base)
    assert again.space_id == kept.space_id
    assert again.with_base_in(tmp_path / "other") is again
