"""The macro-architectures of the MobileNet family: channels, strides and depths of their stages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution.

    Attributes:
        channels: Of their outputs.
        stride: Of the first one.
        max_depth: Most blocks.
        squeeze_excite: Whether the published blocks attend to channels.
        activation: Of the published blocks.
        fixed: Whether it is one block of kernel 3 without expansion, with nothing to choose.
    """

    channels: int
    stride: int
    max_depth: int = 4
    squeeze_excite: bool = False
    activation: str = "relu6"
    fixed: bool = False


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
        min_depth: Fewest blocks of a stage that is not fixed.
        kernels, expansions, activations, squeeze_excite, widths, resolutions: Choices that a
            space has if it is told none. Without activations or squeeze-excite blocks have those
            of their stage; without resolutions, the images' own and three quarters of it.
        source: The paper or code that it is taken from.
    """

    stages: tuple[Stage, ...]
    stem_channels: int
    stem_stride: int = 2
    outer_activation: str = "relu6"
    head_channels: int = 1280
    hidden: int = 0
    hidden_bias: bool = True
    min_depth: int = 1
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
}
"""By name, with the sizes at width 1."""

DEFAULT_SMALL, DEFAULT_LARGE, LARGE = "small", "mobilenet_v3_large", 96
"""The layouts of images whose shorter side has less than so many pixels, and of others."""

Rows = tuple[tuple[int, float, bool, str], ...]

PUBLISHED: dict[str, tuple[str, tuple[Rows, ...]]] = {
    "mobilenet_v2": (
        "mobilenet_v2",
        tuple(((3, 6, False, "relu6"),) * depth for depth in (2, 3, 4, 3, 3, 1)),
    ),
    "mnasnet_b1": (
        "mnasnet",
        tuple(
            ((kernel, expansion, False, "relu"),) * depth
            for kernel, expansion, depth in (
                (3, 3, 3), (5, 3, 3), (5, 6, 3), (3, 6, 2), (5, 6, 4), (3, 6, 1),
            )
        ),
    ),
    "mobilenet_v3_large": (
        "mobilenet_v3_large",
        (
            ((3, 4, False, "relu"), (3, 3, False, "relu")),
            ((5, 3, True, "relu"),) * 3,
            (
                (3, 6, False, "hswish"), (3, 2.5, False, "hswish"),
                (3, 2.3, False, "hswish"), (3, 2.3, False, "hswish"),
            ),
            ((3, 6, True, "hswish"),) * 2,
            ((5, 6, True, "hswish"),) * 3,
        ),
    ),
    "mobilenet_v3_small": (
        "mobilenet_v3_small",
        (
            ((3, 4.5, False, "relu"), (3, 11 / 3, False, "relu")),
            ((5, 4, True, "hswish"), (5, 6, True, "hswish"), (5, 6, True, "hswish")),
            ((5, 3, True, "hswish"),) * 2,
            ((5, 6, True, "hswish"),) * 3,
        ),
    ),
    "ofa_largest": (
        "ofa",
        tuple(
            ((7, 6, squeeze_excite, activation),) * 4
            for squeeze_excite, activation in (
                (False, "relu"), (True, "relu"), (False, "hswish"), (True, "hswish"),
                (True, "hswish"),
            )
        ),
    ),
}  # fmt: skip
"""Networks by name: their layout, and kernel, expansion, squeeze-excite and activation of the
blocks of every stage after the fixed one. From the sources of the layouts."""
