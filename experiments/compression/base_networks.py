"""The networks that are compressed, trained once a seed and kept in `.cache`.

ResNet-18 is written as its users write it; MobileNetV2, with a stem of stride 1, and the
transformer are networks of the search spaces.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from recipes import BASE_EPOCHS, recipe, splits
from torch import nn

import search_spaces
from nas.compression.base import Base
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.trainer import train

CACHE = Path(__file__).resolve().parent / ".cache"

WIDTH = 16
"""Channels of the first stage; ResNet-18 has 64."""


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, inputs, H, W)` to `(N, outputs, H / stride, W / stride)`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)


class ResNet18(nn.Module):
    """ResNet-18 with a stem for small grey images, and `width` channels in its first stage."""

    def __init__(self, width: int = WIDTH, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks += [
                BasicBlock(inputs, outputs, 1 + (stage > 0)),
                BasicBlock(outputs, outputs, 1),
            ]
            inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, 1, H, W)` to logits `(N, classes)`."""
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def built(name: str) -> nn.Module:
    """Return an untrained network: `resnet18`, `resnet18-WIDTH`, `mobilenet` or `transformer`."""
    shape = splits().input_shape
    if name == "mobilenet":
        given = {"input_shape": shape, "num_classes": 10, "layout": "mobilenet_v2"}
        published = search_spaces.get("mobilenet", **given).references()["mobilenet_v2"]
        return search_spaces.get("mobilenet", **given, stem_stride=1).build(published)
    if name == "transformer":
        space = search_spaces.get(
            "vit",
            input_shape=shape,
            num_classes=10,
            resolutions=(28,),
            patches=(4,),
            stems=("conv",),
            widths=(64,),
            depths=(4,),
            heads=(2,),
            mlp_ratios=(2.0,),
            poolings=("mean",),
        )
        return space.build(space.canonical([0] * len(space.genes)))
    width = name.partition("-")[2]
    return ResNet18(int(width or WIDTH))


@cache
def folder_of(name: str, seed: int) -> Path:
    """Return the folder with a trained base, which is trained where there is none."""
    parent = CACHE / f"{name}-{seed}"
    found = list(parent.glob("*/traced.json"))
    if found:
        return found[0].parent
    torch.manual_seed(seed)
    network, data = built(name), splits()
    family = "transformer" if name == "transformer" else "convolution"
    train(network, data.train, recipe(BASE_EPOCHS, family), Preprocessing.of(data.train))
    return Base.of(network, data.input_shape).save(parent)


def space_of(folder: Path, **choices: object) -> SearchSpace:
    """Return what can be made of a base."""
    shape = splits().input_shape
    found: SearchSpace = search_spaces.get(
        "compressed", input_shape=shape, num_classes=10, base=str(folder), **choices
    )
    return found
