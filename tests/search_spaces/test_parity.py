"""Our networks compute what well-kept implementations of the same papers compute.

The weights of one are put into the other, in the order of their layers, with random running
statistics; the logits must agree.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import search_spaces

transformers = pytest.importorskip("transformers")

WEIGHTED = (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.Linear)
TOLERANCE = 1e-5


def weighted(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, WEIGHTED)]


def randomise(network: nn.Module) -> None:
    """Give every normalisation statistics and weights other than the initial ones."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)


def assert_same_logits(ours: nn.Module, theirs: nn.Module, size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.eval()(images).logits
        got = ours.eval()(images)
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("size", [224, 96])
def test_mobilenet_v2(size: int):
    space = search_spaces.get(
        "mobilenet", input_shape=(3, size, size), num_classes=1000, layout="mobilenet_v2"
    )
    ours = space.build(space.references()["mobilenet_v2"])
    theirs = transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(
            num_labels=1000, tf_padding=False, layer_norm_eps=1e-5, image_size=size
        )
    )
    randomise(ours)
    pairs = zip(weighted(ours), weighted(theirs), strict=True)
    for mine, other in pairs:
        other.load_state_dict(mine.state_dict())
    assert_same_logits(ours, theirs, size)
