"""Our networks compute what well-kept implementations of the same papers compute.

Weights and statistics are random. What transformers has saved of its network is loaded into ours;
the logits must agree.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import search_spaces
from search_spaces.pretrained import load_member

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5


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
    for name, parameter in network.named_parameters():
        if name.endswith(("cls_token", "position_embeddings")):
            nn.init.normal_(parameter)


def assert_same_logits(ours: nn.Module, theirs: nn.Module, size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.eval()(images).logits
        got = ours.eval()(images)
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("size", "epsilon"), [(224, 1e-5), (96, 1e-3)])
def test_mobilenet_v2(tmp_path: Path, size: int, epsilon: float):
    space = search_spaces.get(
        "mobilenet", input_shape=(3, size, size), num_classes=1000, layout="mobilenet_v2"
    )
    theirs = transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(
            num_labels=1000, tf_padding=False, layer_norm_eps=epsilon, image_size=size
        )
    )
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    found = load_member(tmp_path, space)
    assert_same_logits(found.network, theirs, size)
    own = space.build(space.references()["mobilenet_v2"])
    own.load_state_dict(found.network.state_dict())
    assert_same_logits(own, theirs, size)


@pytest.mark.parametrize(("name", "size"), [("deit_tiny", 224), ("small", 32)])
def test_vision_transformer(tmp_path: Path, name: str, size: int):
    if name == "small":
        width, heads, depth, patch, ratio = 64, 2, 3, 4, 2.0
        space = search_spaces.get(
            "vit",
            input_shape=(3, size, size),
            num_classes=10,
            patches=(patch,),
            stems=("patch",),
            widths=(width,),
            depths=(depth,),
            heads=(heads,),
            mlp_ratios=(ratio,),
            poolings=("token",),
            relative_position=(False,),
        )
        genotype = space.canonical([0] * len(space.genes))
    else:
        width, heads, depth, patch, ratio = 192, 3, 12, 16, 4.0
        space = search_spaces.get("vit", input_shape=(3, size, size), num_classes=1000)
        genotype = space.references()[name]
    theirs = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=int(ratio * width),
            layer_norm_eps=1e-6,
            image_size=size,
            patch_size=patch,
            num_labels=space.num_classes,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    found = load_member(tmp_path, space)
    assert_same_logits(found.network, theirs, size)
    own = space.build(genotype)
    own.load_state_dict(found.network.state_dict())
    assert_same_logits(own, theirs, size)
