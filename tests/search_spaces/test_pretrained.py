"""Pretrained weights from folders of transformers, of exports and of studies, and wrong folders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import search_spaces
from nas.core.errors import HwnasError
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing, TrainedNetwork
from search_spaces.pretrained import load_member

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 4,
    "num_labels": 10,
}


def vit_space(size: int = 32, **changes: Any) -> SearchSpace:
    fields = {"num_classes": 10, "input_shape": (3, size, size), "patches": (4,)}
    return search_spaces.get("vit", **{**fields, **changes})


def saved_vit(folder: Path, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**{**SIZES, **changes}))
    for name, parameter in network.named_parameters():
        if "embeddings" in name:
            nn.init.normal_(parameter)
    network.save_pretrained(folder)
    return network.eval()


def saved_mobilenet(folder: Path, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(**{"num_labels": 10, "image_size": 64, **changes})
    network = transformers.MobileNetV2ForImageClassification(config)
    network.save_pretrained(folder)
    return network.eval()


def saved_network(folder: Path, space: SearchSpace) -> TrainedNetwork:
    """Save the first network of a space as a study keeps a verified one."""
    genotype = space.canonical([0] * len(space.genes))
    channels, *size = space.input_shape
    trained = TrainedNetwork(
        module=space.build(genotype).eval(),
        preprocessing=Preprocessing(
            mean=(0.5,) * channels, std=(0.5,) * channels, image_size=tuple(size)
        ),
        outputs=tuple("abcdefghij"),
        provenance={
            "space": {
                "class": f"{type(space).__module__}.{type(space).__name__}",
                "settings": asdict(space),
                "space_id": space.space_id,
            },
            "genotype": genotype,
        },
    )
    trained.save(folder)
    return trained


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_common_norm_of_vit_gives_the_same_logits(tmp_path):
    theirs = saved_vit(tmp_path, layer_norm_eps=1e-12)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        ours = load_member(tmp_path, vit_space()).network(images)
        torch.testing.assert_close(ours, theirs(images).logits, rtol=1e-4, atol=1e-4)


def test_deit_is_mapped_without_its_distillation_token(tmp_path):
    theirs = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**SIZES))
    nn.init.normal_(theirs.deit.embeddings.position_embeddings)
    theirs.save_pretrained(tmp_path)
    found = load_member(tmp_path, vit_space())
    assert found.notes
    positions = theirs.deit.embeddings.position_embeddings
    own = found.network.tokens.positions
    assert torch.equal(own[:, 0], positions[:, 0])
    assert torch.equal(own[:, 1:], positions[:, 2:])
    assert torch.equal(found.network.classifier.linear.weight, theirs.cls_classifier.weight)


def test_a_network_without_classifier_has_no_outputs(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**SIZES)).save_pretrained(tmp_path)
    assert load_member(tmp_path, vit_space()).outputs == ()


def test_classes_are_named_as_in_the_file(tmp_path):
    saved_vit(tmp_path, num_labels=2, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    assert load_member(tmp_path, vit_space()).outputs == ("cat", "dog")


def test_a_narrow_mobilenet_is_in_a_space_of_that_width(tmp_path):
    saved_mobilenet(tmp_path, depth_multiplier=0.5, finegrained_output=False, num_labels=7)
    space = search_spaces.get(
        "mobilenet",
        input_shape=(1, 48, 48),
        num_classes=3,
        layout="mobilenet_v2",
        kinds=("fused", "mbconv", "extra_dw"),
        widths=(0.5, 1.0),
    )
    found = load_member(tmp_path, space)
    assert len(found.outputs) == 7
    assert found.network(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert found.notes  # of TensorFlow's padding


@pytest.mark.parametrize("name", ["mobilenet", "darts"])
def test_a_verified_network_is_loaded_for_images_of_another_size(tmp_path, name):
    trained = saved_network(
        tmp_path, search_spaces.get(name, input_shape=(3, 32, 32), num_classes=10)
    )
    space = search_spaces.get(name, input_shape=(1, 28, 28), num_classes=4)
    found = load_member(tmp_path, space)
    assert found.outputs == trained.outputs
    for key, tensor in trained.module.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], tensor)


def refused(folder: Path, space: SearchSpace) -> str:
    with pytest.raises(HwnasError) as caught:
        load_member(folder, space)
    line = str(caught.value)
    assert "\n" not in line
    assert str(folder) in line
    return line


def test_wrong_folders_are_refused_in_one_line(tmp_path):
    refused(tmp_path / "nothing", vit_space())
    saved_vit(tmp_path)
    assert "width" in refused(tmp_path, vit_space(widths=(96, 128)))
    assert "MobileNet" in refused(
        tmp_path, search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    )
    changed(tmp_path, hidden_act="relu")
    assert "hidden_act" in refused(tmp_path, vit_space())
    changed(tmp_path, hidden_act="gelu", architectures=["ViTForMaskedImageModeling"])
    assert "architectures" in refused(tmp_path, vit_space())
    changed(tmp_path, architectures=None, num_hidden_layers=3)
    refused(tmp_path, vit_space())
    changed(tmp_path, num_hidden_layers=2, intermediate_size=256)
    assert "shape" in refused(tmp_path, vit_space())
    changed(tmp_path, intermediate_size=128)
    load_member(tmp_path, vit_space())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refused(tmp_path, vit_space())
    saved_vit(tmp_path)
    tensors = load_file(weights)
    tensors["vit.layernorm.bias"][0] = torch.nan
    save_file(tensors, weights)
    assert "vit.layernorm.bias" in refused(tmp_path, vit_space())
    weights.rename(tmp_path / "pytorch_model.bin")
    assert "pickle" in refused(tmp_path, vit_space())
    changed(tmp_path, model_type="bert")
    assert "bert" in refused(tmp_path, vit_space())


def test_a_layout_of_other_blocks_is_refused(tmp_path):
    saved_mobilenet(tmp_path)
    space = search_spaces.get("mobilenet", input_shape=(3, 64, 64), num_classes=10, layout="small")
    refused(tmp_path, space)
    refused(tmp_path, search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10))
