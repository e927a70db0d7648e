"""The fixed networks of this experiment, for grey images of 28 pixels, and the former recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainings import Network

from nas.core.recipe import Recipe

VIT = Network(
    space="vit",
    choices={
        "resolution": 28,
        "patch": 4,
        "stem": "conv",
        "width": 64,
        "pooling": "mean",
        "depth": 4,
        "heads": 2,
        "mlp_ratio": 2.0,
    },
)

WIDE_VIT = replace(VIT, choices={**VIT.choices, "width": 96, "heads": 3})

_CONVOLUTIONAL = {"width": 1.0, "resolution": 28, "depth": 2, "kernel": 3}

DEPTHWISE = Network(
    space="mobilenet",
    choices={**_CONVOLUTIONAL, "expansion": 4, "squeeze_excite": True, "activation": "hswish"},
)

SMALL = Network(
    space="mobilenet",
    choices={
        **_CONVOLUTIONAL,
        "width": 0.5,
        "depth": 1,
        "expansion": 4,
        "squeeze_excite": False,
        "activation": "relu6",
    },
)

RESIDUAL = Network(
    space="mobilenet",
    settings={"kinds": ("mbconv", "fused", "residual"), "stem_stride": 1},
    choices={**_CONVOLUTIONAL, "kind": "residual", "stage1.depth": 1, "activation": "relu6"},
)

FUSED = Network(
    space="mobilenet",
    settings={"kinds": ("mbconv", "fused", "residual"), "expansions": (1, 2, 3, 4, 6)},
    choices={
        **_CONVOLUTIONAL,
        "kind": "fused",
        "stage1.depth": 1,
        "expansion": 3,
        "squeeze_excite": False,
        "activation": "relu6",
    },
)

FORMER: dict[str, Any] = {
    "batch_size": 64,
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "schedule": {"name": "one_cycle", "warmup": 0.3},
    "augmentation": {"flip": True},
}
"""The recipe of all networks before there were parts and presets."""


def many_images(family: str, **changes: Any) -> Recipe:
    """Return `full` with what suits Fashion-MNIST on a processor that multiplies in bf16."""
    augmentation = {"flip": True, **changes.pop("augmentation", {})}
    return Recipe.of(
        "full",
        family,
        augmentation=augmentation,
        compute={"precision": "bf16"},
        **{"batch_size": 128, **changes},
    )
