from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nas.core.errors import ConfigError, HwnasError
from nas.network.trained import WEIGHTS, Preprocessing, TrainedNetwork

PREPROCESSING = Preprocessing(mean=(0.4, 0.5), std=(0.2, 0.3), image_size=(6, 4))


def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def test_a_trained_network_is_saved_and_loaded(tmp_path: Path) -> None:
    trained = TrainedNetwork(
        module=module(),
        preprocessing=PREPROCESSING,
        outputs=("ant", "bee", "cat"),
        provenance={"arch_id": "a1", "seed": 3},
        metrics={"error_final": 12.5},
    )
    trained.module(torch.randn(4, 2, 6, 4))
    loaded = TrainedNetwork.load(trained.save(tmp_path), module())
    assert loaded.preprocessing == PREPROCESSING
    assert loaded.preprocessing.input_shape == (2, 6, 4)
    assert (loaded.outputs, loaded.provenance) == (trained.outputs, trained.provenance)
    assert loaded.metrics == trained.metrics
    assert not loaded.module.training
    for name, tensor in trained.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], tensor), name


def test_foreign_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    TrainedNetwork(module=module(), preprocessing=PREPROCESSING, outputs=("a",)).save(tmp_path)
    with pytest.raises(HwnasError, match="cannot be loaded"):
        TrainedNetwork.load(tmp_path, nn.Linear(2, 2))
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(HwnasError, match="cannot be loaded"):
        TrainedNetwork.load(tmp_path, module())


def test_weights_with_one_changed_bit_are_refused(tmp_path: Path) -> None:
    TrainedNetwork(module=module(), preprocessing=PREPROCESSING, outputs=("a",)).save(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(HwnasError, match=WEIGHTS):
        TrainedNetwork.load(tmp_path, module())


def test_preprocessing_is_checked() -> None:
    with pytest.raises(ConfigError, match="positive"):
        Preprocessing(mean=(0.5,), std=(0.0,), image_size=(4, 4))
