"""The macro-architectures of the MobileNet family: channels, strides and depths of their stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution.

    Attributes:
        channels: Of their outputs.
        stride: Of the first one.
        max_depth: Most blocks.
        squeeze_excite: Whether the published blocks attend to channels.
        activation: Of the published blocks.
        kind: Of the published blocks; `conv` is a convolution with normalisation and activation.
        fixed: Whether it is `max_depth` published blocks, with nothing to choose.
        kernel: Kernel size of a fixed block, which has no expansion.
    """

    channels: int
    stride: int
    max_depth: int = 4
    squeeze_excite: bool = False
    activation: str = "relu6"
    kind: str = "mbconv"
    fixed: bool = False
    kernel: int = 3


@dataclass(frozen=True)
class Layout:
    """A macro-architecture.

    Attributes:
        stages: From the input to the output.
        stem_channels: Of the first convolution.
        stem_stride: Of the first convolution.
        outer_activation: Of the first convolution and of the last one.
        head_channels: Of the last convolution.
        hidden: Units of a layer between pooling and classifier; 0 for none.
        hidden_bias: Whether that layer has a bias.
        hidden_norm: Whether that layer is normalised, in place of a bias (MobileNetV4).
        min_depth: Fewest blocks of a stage that is not fixed.
        kinds, kernels, expansions, activations, squeeze_excite, widths, resolutions: Choices that
            a space has if it is told none. Without kinds, activations or squeeze-excite blocks
            have those of their stage; without resolutions, the images' own and three quarters.
        source: The paper or code that it is taken from.
    """

    stages: tuple[Stage, ...]
    stem_channels: int
    stem_stride: int = 2
    outer_activation: str = "relu6"
    head_channels: int = 1280
    hidden: int = 0
    hidden_bias: bool = True
    hidden_norm: bool = False
    min_depth: int = 1
    kinds: tuple[str, ...] = ()
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[float, ...] = (3, 4, 6)
    activations: tuple[str, ...] = ()
    squeeze_excite: tuple[bool, ...] = (False, True)
    widths: tuple[float, ...] = (1.0,)
    resolutions: tuple[int, ...] = ()
    source: str = ""


def _stages(*rows: tuple[int, int, int], activation: str = "relu6") -> tuple[Stage, ...]:
    """Return stages of channels, stride and depth; the first one is fixed."""
    return tuple(
        Stage(channels, stride, depth, activation=activation, fixed=i == 0)
        for i, (channels, stride, depth) in enumerate(rows)
    )


LAYOUTS = {
    "small": Layout(
        stages=(Stage(16, 1, 3), Stage(24, 2, 3), Stage(40, 2, 3), Stage(80, 1, 3)),
        stem_channels=16,
        head_channels=160,
        kernels=(3, 5),
        expansions=(2, 4, 6),
        activations=("relu6", "hswish"),
        widths=(0.5, 0.75, 1.0),
        source="for images of 28 to 64 pixels",
    ),
    "mobilenet_v2": Layout(
        stages=_stages(
            (16, 1, 1), (24, 2, 4), (32, 2, 4), (64, 2, 4), (96, 1, 4), (160, 2, 4), (320, 1, 4)
        ),
        stem_channels=32,
        source="Sandler et al., CVPR 2018, table 2",
    ),
    "mnasnet": Layout(
        stages=_stages(
            (16, 1, 1),
            (24, 2, 4),
            (40, 2, 4),
            (80, 2, 4),
            (96, 1, 4),
            (192, 2, 4),
            (320, 1, 4),
            activation="relu",
        ),
        stem_channels=32,
        outer_activation="relu",
        source="Tan et al., CVPR 2019; MnasNet-B1 as in torchvision, models/mnasnet.py",
    ),
    "mobilenet_v3_large": Layout(
        stages=(
            Stage(16, 1, 1, activation="relu", fixed=True),
            Stage(24, 2, 4, activation="relu"),
            Stage(40, 2, 4, squeeze_excite=True, activation="relu"),
            Stage(80, 2, 4, activation="hswish"),
            Stage(112, 1, 4, squeeze_excite=True, activation="hswish"),
            Stage(160, 2, 4, squeeze_excite=True, activation="hswish"),
        ),
        stem_channels=16,
        outer_activation="hswish",
        head_channels=960,
        hidden=1280,
        expansions=(2.3, 2.5, 3, 4, 6),
        activations=("relu", "hswish"),
        source="Howard et al., ICCV 2019, table 1",
    ),
    "mobilenet_v3_small": Layout(
        stages=(
            Stage(16, 2, 1, squeeze_excite=True, activation="relu", fixed=True),
            Stage(24, 2, 4, activation="relu"),
            Stage(40, 2, 4, squeeze_excite=True, activation="hswish"),
            Stage(48, 1, 4, squeeze_excite=True, activation="hswish"),
            Stage(96, 2, 4, squeeze_excite=True, activation="hswish"),
        ),
        stem_channels=16,
        outer_activation="hswish",
        head_channels=576,
        hidden=1024,
        expansions=(3, 11 / 3, 4, 4.5, 6),
        activations=("relu", "hswish"),
        source="Howard et al., ICCV 2019, table 2",
    ),
    "ofa": Layout(
        stages=(
            Stage(16, 1, 1, activation="relu", fixed=True),
            Stage(24, 2, 4, activation="relu"),
            Stage(40, 2, 4, squeeze_excite=True, activation="relu"),
            Stage(80, 2, 4, activation="hswish"),
            Stage(112, 1, 4, squeeze_excite=True, activation="hswish"),
            Stage(160, 2, 4, squeeze_excite=True, activation="hswish"),
        ),
        stem_channels=16,
        outer_activation="hswish",
        head_channels=960,
        hidden=1280,
        hidden_bias=False,
        min_depth=2,
        squeeze_excite=(),
        resolutions=(128, 160, 192, 224),
        source="Cai et al., ICLR 2020; mit-han-lab/once-for-all, ofa_mbv3.py",
    ),
    "efficientnet_v2_s": Layout(
        stages=tuple(
            Stage(channels, stride, depth, activation="swish")
            for channels, stride, depth in (
                (24, 1, 2),
                (48, 2, 4),
                (64, 2, 4),
                (128, 2, 6),
                (160, 1, 9),
                (256, 2, 15),
            )
        ),
        stem_channels=24,
        outer_activation="swish",
        kinds=("mbconv", "fused"),
        kernels=(3, 5),
        expansions=(1, 4, 6),
        source="Tan and Le, ICML 2021, table 4; google/automl, efficientnetv2/effnetv2_configs.py",
    ),
    "mobilenet_v4_conv_small": Layout(
        stages=(
            Stage(32, 2, 1, activation="relu", kind="conv", fixed=True),
            Stage(32, 1, 1, activation="relu", kind="conv", fixed=True, kernel=1),
            Stage(96, 2, 1, activation="relu", kind="conv", fixed=True),
            Stage(64, 1, 1, activation="relu", kind="conv", fixed=True, kernel=1),
            Stage(96, 2, 6, activation="relu"),
            Stage(128, 2, 6, activation="relu"),
        ),
        stem_channels=32,
        outer_activation="relu",
        head_channels=960,
        hidden=1280,
        hidden_norm=True,
        kinds=("mbconv", "extra_dw", "convnext", "ffn"),
        kernels=(3, 5),
        expansions=(2, 3, 4, 6),
        squeeze_excite=(),
        source="Qin et al., ECCV 2024; MNv4-Conv-S as in timm, models/mobilenetv3.py",
    ),
}
"""By name, with the sizes at width 1."""

DEFAULT_SMALL, DEFAULT_LARGE, LARGE = "small", "mobilenet_v3_large", 96
"""The layouts of images whose shorter side has less than so many pixels, and of others."""


class Row(NamedTuple):
    """A published block by the names of the genes that choose it; `None` where there is none."""

    kernel: int
    expansion: float
    squeeze_excite: bool | None = None
    activation: str | None = None
    kind: str = "mbconv"
    start_kernel: int | None = None


PUBLISHED: dict[str, tuple[str, tuple[tuple[Row, ...], ...]]] = {
    "mobilenet_v2": (
        "mobilenet_v2",
        tuple((Row(3, 6, False, "relu6"),) * depth for depth in (2, 3, 4, 3, 3, 1)),
    ),
    "mnasnet_b1": (
        "mnasnet",
        tuple(
            (Row(kernel, expansion, False, "relu"),) * depth
            for kernel, expansion, depth in (
                (3, 3, 3), (5, 3, 3), (5, 6, 3), (3, 6, 2), (5, 6, 4), (3, 6, 1),
            )
        ),
    ),
    "mobilenet_v3_large": (
        "mobilenet_v3_large",
        (
            (Row(3, 4, False, "relu"), Row(3, 3, False, "relu")),
            (Row(5, 3, True, "relu"),) * 3,
            (
                Row(3, 6, False, "hswish"), Row(3, 2.5, False, "hswish"),
                Row(3, 2.3, False, "hswish"), Row(3, 2.3, False, "hswish"),
            ),
            (Row(3, 6, True, "hswish"),) * 2,
            (Row(5, 6, True, "hswish"),) * 3,
        ),
    ),
    "mobilenet_v3_small": (
        "mobilenet_v3_small",
        (
            (Row(3, 4.5, False, "relu"), Row(3, 11 / 3, False, "relu")),
            (Row(5, 4, True, "hswish"), Row(5, 6, True, "hswish"), Row(5, 6, True, "hswish")),
            (Row(5, 3, True, "hswish"),) * 2,
            (Row(5, 6, True, "hswish"),) * 3,
        ),
    ),
    "ofa_largest": (
        "ofa",
        tuple(
            (Row(7, 6, squeeze_excite, activation),) * 4
            for squeeze_excite, activation in (
                (False, "relu"), (True, "relu"), (False, "hswish"), (True, "hswish"),
                (True, "hswish"),
            )
        ),
    ),
    "efficientnet_v2_s": (
        "efficientnet_v2_s",
        tuple(
            (Row(3, expansion, kind == "mbconv", kind=kind),) * depth
            for kind, expansion, depth in (
                ("fused", 1, 2), ("fused", 4, 4), ("fused", 4, 4),
                ("mbconv", 4, 6), ("mbconv", 6, 9), ("mbconv", 6, 15),
            )
        ),
    ),
    "mobilenet_v4_conv_small": (
        "mobilenet_v4_conv_small",
        (
            (
                Row(5, 3, kind="extra_dw", start_kernel=5),
                *(Row(3, 2),) * 4,
                Row(3, 4, kind="convnext"),
            ),
            (
                Row(3, 6, kind="extra_dw", start_kernel=3),
                Row(5, 4, kind="extra_dw", start_kernel=5),
                Row(5, 4), Row(5, 3), Row(3, 4), Row(3, 4),
            ),
        ),
    ),
}  # fmt: skip
"""Networks by name: their layout, and the blocks of every stage that is not fixed. From the
sources of the layouts."""
