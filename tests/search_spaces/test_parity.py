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


@pytest.mark.parametrize(("name", "size"), [("deit_tiny", 224), ("small", 32)])
def test_vision_transformer(name: str, size: int):
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
    ours = space.build(genotype)
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
    randomise(ours)
    with torch.no_grad():
        for token in (ours.tokens.token, ours.tokens.positions):
            torch.nn.init.normal_(token)
    theirs.load_state_dict(as_vit(ours.state_dict(), depth))
    assert_same_logits(ours, theirs, size)


def as_vit(state: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Return our weights under the names of the other implementation."""
    names = {
        "stem.projection": "vit.embeddings.patch_embeddings.projection",
        "classifier.norm": "vit.layernorm",
        "classifier.linear": "classifier",
    }
    mapped = {
        "vit.embeddings.cls_token": state["tokens.token"],
        "vit.embeddings.position_embeddings": state["tokens.positions"],
    }
    for i in range(depth):
        attention, forward = f"block{i + 1}_attention", f"block{i + 1}_feed_forward"
        names |= {
            f"{attention}.output": f"vit.layers.{i}.attention.o_proj",
            f"{attention}.norm": f"vit.layers.{i}.layernorm_before",
            f"{forward}.norm": f"vit.layers.{i}.layernorm_after",
            f"{forward}.expand": f"vit.layers.{i}.mlp.fc1",
            f"{forward}.project": f"vit.layers.{i}.mlp.fc2",
        }
        for kind in ("weight", "bias"):
            parts = state[f"{attention}.inputs.{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                mapped[f"vit.layers.{i}.attention.{name}_proj.{kind}"] = part
    for name, other in names.items():
        for kind in ("weight", "bias"):
            mapped[f"{other}.{kind}"] = state[f"{name}.{kind}"]
    return mapped
