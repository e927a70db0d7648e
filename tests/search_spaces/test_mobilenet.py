from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from whole_costs import costs_of, count

import search_spaces
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace
from search_spaces.layers.convolution import BasicBlock
from search_spaces.mobilenet import KINDS


def space(**settings: object) -> SearchSpace:
    return search_spaces.get(
        "mobilenet", **{"input_shape": (3, 32, 32), "num_classes": 10, **settings}
    )


@pytest.mark.parametrize(
    ("layout", "name", "size", "params", "macs_m"),
    [
        # Parameters and multiply-adds of torchvision's networks at 1,000 classes
        # (torchvision/models: num_params and _ops of the IMAGENET1K_V1 weights); MobileNetV2 has
        # 300 M in Sandler et al., table 4, MnasNet-B1 315 M in Tan et al., table 1.
        ("mobilenet_v2", "mobilenet_v2", 224, 3_504_872, 300.8),
        ("mobilenet_v3_large", "mobilenet_v3_large", 224, 5_483_032, 216.6),
        ("mobilenet_v3_small", "mobilenet_v3_small", 224, 2_542_856, 56.5),
        ("mnasnet", "mnasnet_b1", 224, 4_383_312, 314.4),
        ("efficientnet_v2_s", "efficientnet_v2_s", 384, 21_458_488, 8_366),
        # timm's mobilenetv4_conv_small; 0.19 G in its results/benchmark-infer tables.
        ("mobilenet_v4_conv_small", "mobilenet_v4_conv_small", 224, 3_774_024, 186.0),
    ],
)
def test_published_networks(layout: str, name: str, size: int, params: int, macs_m: float):
    at = space(input_shape=(3, size, size), num_classes=1000, layout=layout, resolutions=(size,))
    costs = costs_of(at, at.references()[name])
    assert costs.params == params
    assert costs.macs / 1e6 == pytest.approx(macs_m, rel=0.005)


def test_layers_of_mobilenet_v4():
    """Kernels and channels as timm's, models/mobilenetv3.py: a depthwise has one input channel."""
    at = space(input_shape=(3, 224, 224), num_classes=1000, layout="mobilenet_v4_conv_small")
    network = at.build(at.references()["mobilenet_v4_conv_small"])
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    found = [tuple(each.weight.shape[:3]) for each in convolutions if each.stride == (1, 1)]
    strided = [tuple(each.weight.shape[:3]) for each in convolutions if each.stride == (2, 2)]
    assert strided == [(32, 3, 3), (32, 32, 3), (96, 32, 3), (192, 1, 5), (576, 1, 3)]

    def block(inputs: int, outputs: int, hidden: int, *kernels: int) -> list[tuple[int, ...]]:
        """`kernels` are of the depthwise convolutions before and behind the expansion."""
        before, behind = kernels
        return [
            *([(inputs, 1, before)] if before else []),
            (hidden, inputs, 1),
            *([(hidden, 1, behind)] if behind else []),
            (outputs, hidden, 1),
        ]

    assert found == [
        (32, 32, 1),
        (64, 96, 1),
        *block(64, 96, 192, 5, 0),
        *block(96, 96, 192, 0, 3) * 4,
        *block(96, 96, 384, 3, 0),
        *block(96, 128, 576, 3, 0),
        *block(128, 128, 512, 5, 5),
        *block(128, 128, 512, 0, 5),
        *block(128, 128, 384, 0, 5),
        *block(128, 128, 512, 0, 3) * 2,
        (960, 128, 1),
        (1280, 960, 1),
    ]


def test_the_largest_network_of_once_for_all():
    """Against arithmetic over the blocks of mit-han-lab/once-for-all, ofa_mbv3.py."""

    def convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> int:
        return inputs // groups * outputs * kernel**2 + 2 * outputs

    params = convolution(3, 16, 3) + convolution(16, 16, 3, 16) + convolution(16, 16, 1)
    macs = (27 + 9 + 16) * 16 * 112**2
    inputs, side = 16, 112
    for outputs, stride, attends in (
        (24, 2, False),
        (40, 2, True),
        (80, 2, False),
        (112, 1, True),
        (160, 2, True),
    ):
        for block in range(4):
            hidden = 6 * inputs
            macs += inputs * hidden * side**2
            side //= stride if block == 0 else 1
            macs += (49 * hidden + hidden * outputs) * side**2
            params += convolution(inputs, hidden, 1) + convolution(hidden, hidden, 7, hidden)
            params += convolution(hidden, outputs, 1)
            if attends:
                squeezed = (hidden // 4 + 4) // 8 * 8
                params += 2 * hidden * squeezed + hidden + squeezed
                macs += 2 * hidden * squeezed
            inputs = outputs
    params += convolution(160, 960, 1) + 960 * 1280 + 1280 * 1000 + 1000
    macs += 160 * 960 * 7**2 + 960 * 1280 + 1280 * 1000
    ofa = space(input_shape=(3, 224, 224), num_classes=1000, layout="ofa")
    costs = costs_of(ofa, ofa.references()["ofa_largest"])
    assert (costs.params, costs.macs) == (params, macs)


def test_the_size_of_once_for_all():
    """((3 x 3)^2 + (3 x 3)^3 + (3 x 3)^4)^5, about 2 x 10^19 (Cai et al., section 3.2)."""
    ofa = space(input_shape=(3, 224, 224), num_classes=1000, layout="ofa", resolutions=(224,))
    full = (9**2 + 9**3 + 9**4) ** 5
    assert 2e19 < full < 2.5e19
    assert ofa.size == full
    assert replace(ofa, resolutions=tuple(range(128, 225, 4))).size == 25 * full


def test_expansions_that_round_to_the_same_width_are_one():
    """2.3 and 2.5 times 16 channels are 40, of 24 they are 56 and 64."""
    at = space(input_shape=(3, 224, 224), num_classes=1000)
    first = at.references()["mobilenet_v3_large"]
    names = [gene.name for gene in at.genes]

    def changed(name: str, expansion: float) -> tuple[int, ...]:
        position = names.index(name)
        choice = at.genes[position].choices.index(expansion)
        return at.canonical([*first[:position], choice, *first[position + 1 :]])

    assert changed("stage2.block1.expansion", 2.3) == changed("stage2.block1.expansion", 2.5)
    assert changed("stage2.block2.expansion", 2.3) != changed("stage2.block2.expansion", 2.5)


@pytest.mark.parametrize(
    ("squeeze_excite", "params", "macs"),
    # Squeezing 16 channels to 8 and back: 16 * 8 + 8 and 8 * 16 + 16 parameters.
    [(False, 898, 38_560), (True, 898 + 136 + 144, 38_560 + 256)],
)
def test_counts_by_hand(squeeze_excite: bool, params: int, macs: int):
    small = space(
        input_shape=(1, 8, 8),
        resolutions=(8,),
        widths=(1.0,),
        kernels=(3,),
        expansions=(2,),
        squeeze_excite=(squeeze_excite,),
        activations=("relu6",),
        stem_channels=8,
        stem_stride=1,
        stage_channels=(8,),
        stage_strides=(1,),
        max_depth=1,
        head_channels=16,
    )
    # stem 9 * 8 + 16, expansion 8 * 16 + 32, depthwise 9 * 16 + 32, projection 16 * 8 + 16,
    # head 8 * 16 + 32, classifier 16 * 10 + 10; each at 64 positions but the classifier.
    assert params - 280 * squeeze_excite == 88 + 160 + 176 + 144 + 160 + 170
    assert macs - 256 * squeeze_excite == 64 * (72 + 128 + 144 + 128 + 128) + 160
    costs = costs_of(small, [0] * len(small.genes))
    assert (costs.params, costs.macs) == (params, macs)


ONE_BLOCK = {
    "input_shape": (1, 8, 8),
    "resolutions": (8,),
    "widths": (1.0,),
    "kernels": (3, 5),
    "expansions": (1, 2),
    "squeeze_excite": (False,),
    "activations": ("relu",),
    "stem_channels": 8,
    "stem_stride": 1,
    "stage_channels": (8,),
    "stage_strides": (1,),
    "max_depth": 1,
    "head_channels": 16,
}
AROUND = 88 + 160 + 170
"""Parameters of its stem, head and classifier; see `test_counts_by_hand`."""


@pytest.mark.parametrize(
    ("kind", "kernel", "expansion", "params"),
    # Of convolutions of 8, and of 16 hidden, channels, with two for each channel they give.
    [
        ("mbconv", 5, 1, (8 * 25 + 16) + (8 * 8 + 16)),
        ("fused", 3, 1, 8 * 8 * 9 + 16),
        ("fused", 5, 2, (8 * 16 * 25 + 32) + (16 * 8 + 16)),
        ("residual", 3, None, 2 * (8 * 8 * 9 + 16)),
        ("extra_dw", 5, 2, (8 * 9 + 16) + (8 * 16 + 32) + (16 * 25 + 32) + (16 * 8 + 16)),
        ("convnext", 5, 2, (8 * 25 + 16) + (8 * 16 + 32) + (16 * 8 + 16)),
        ("ffn", None, 2, (8 * 16 + 32) + (16 * 8 + 16)),
    ],
)
def test_kinds_of_blocks_by_hand(kind: str, kernel: int | None, expansion: int | None, params: int):
    one = space(**ONE_BLOCK, kinds=tuple(KINDS))
    wanted = {"kind": kind, "kernel": kernel, "expansion": expansion}
    if kind == "extra_dw":
        wanted["start_kernel"] = 3
    chosen = {f"stage1.block1.{name}": value for name, value in wanted.items() if value is not None}
    values = [chosen.get(gene.name, gene.choices[-1]) for gene in one.genes]
    genotype = [gene.choices.index(value) for gene, value in zip(one.genes, values, strict=True)]
    # What is not wanted has no effect, whatever its choice.
    outer = {"width", "resolution", "stage1.depth"}
    attends = set() if kind == "residual" else {"stage1.block1.squeeze_excite"}
    activated = {"stage1.block1.activation"}
    assert set(one.decode(genotype)) == {*chosen, *outer, *attends, *activated}
    costs = costs_of(one, genotype)
    assert costs.params == AROUND + params
    assert costs.params == count(one.build(genotype), one.input_shape).params


def test_a_residual_block_is_that_of_resnet():
    block = BasicBlock([8, 6, 6], outputs=16, kernel=3, stride=2, activation="relu").eval()
    first, norm, _, second, last = block.layers
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        by_hand = last(second(torch.relu(norm(first(x))))) + block.shortcut(x)
        assert torch.equal(block(x), torch.relu(by_hand))
    assert block.shortcut[0].weight.shape == (16, 8, 1, 1)
    assert BasicBlock([8, 6, 6], outputs=8, kernel=3, stride=1, activation="relu").shortcut is None


def test_a_block_without_depthwise_convolutions_cannot_reduce_the_resolution():
    two = space(kinds=("ffn", "fused"), stage_channels=(16,), stage_strides=(2,), max_depth=2)
    kinds = {gene.name: gene.choices for gene in two.genes if gene.name.endswith("kind")}
    assert kinds == {"stage1.block1.kind": ("fused",), "stage1.block2.kind": ("ffn", "fused")}


def test_kinds_leave_the_published_networks_in_the_space():
    plain = space(input_shape=(3, 224, 224), num_classes=1000, layout="mobilenet_v2")
    kinds = replace(plain, kinds=tuple(KINDS))
    pairs = [(each, each.references()["mobilenet_v2"]) for each in (plain, kinds)]
    assert pairs[0][0].describe(pairs[0][1]) == pairs[1][0].describe(pairs[1][1])
    assert not replace(plain, kinds=("fused",)).references()


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_all_kinds_count_what_a_trace_counts(seed: int):
    at = space(input_shape=(3, 16, 16), kinds=tuple(KINDS))
    genotype = at.sample(np.random.default_rng(seed))
    network = at.build(genotype)
    assert network.eval()(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    assert costs_of(at, genotype) == count(network, at.input_shape)


def test_resolution_scales_the_operations_and_not_the_parameters():
    sizes = space(resolutions=(16, 32))
    small, large = ([0, i] + [0] * (len(sizes.genes) - 2) for i in range(2))
    assert costs_of(sizes, small).params == costs_of(sizes, large).params
    assert costs_of(sizes, large).macs / costs_of(sizes, small).macs == pytest.approx(4, rel=0.01)


def test_images_that_are_not_square_keep_their_shape():
    wide = space(input_shape=(3, 20, 30), resolutions=(10, 20))
    first = wide.describe((0, 0) + (0,) * (len(wide.genes) - 2))[0]
    assert (first["name"], first["output_shape"]) == ("resize", [3, 10, 15])
    assert wide.describe((0, 1) + (0,) * (len(wide.genes) - 2))[0]["name"] == "stem"


def test_default_resolutions_are_the_images_own_and_three_quarters_of_it():
    assert space().resolutions == (24, 32)
    assert space(input_shape=(1, 28, 40)).resolutions == (21, 28)
    assert space(input_shape=(1, 1, 1)).resolutions == (1,)


def test_genes_beyond_the_depth_of_their_stage_are_folded():
    two = space(stage_channels=(16, 24), stage_strides=(1, 2), max_depth=2)
    stage = (0, 1, 2, 1, 1, 1, 2, 1, 1)  # depth 1: its second block is inactive
    assert two.canonical((2, 1, *stage, *stage)) == (2, 1, *(0, 1, 2, 1, 1, 0, 0, 0, 0) * 2)
    deep = (1, *stage[1:])
    assert two.canonical((2, 1, *deep, *deep)) == (2, 1, *deep, *deep)


def test_blocks_are_residual_where_shapes_allow():
    network = space().build([n - 1 for n in space().cardinalities])
    residual = [
        module.residual for name, module in network.named_children() if name.startswith("stage")
    ]
    assert residual == [True] * 3 + [False, True, True] * 3


def test_channels_are_multiples_of_eight_and_never_lose_a_tenth():
    from search_spaces.layers.convolution import divisible_by_8

    rounded = {c: divisible_by_8(c) for c in range(1, 500)}
    assert all(r % 8 == 0 and 0.9 * c <= r for c, r in rounded.items())
    assert (rounded[18], rounded[60], rounded[3]) == (24, 64, 8)


def test_one_image_gives_the_logits_that_it_gives_in_a_batch():
    network = space().build([0] * len(space().genes)).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(network(images)[2:3], network(images[2:3]), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolutions", (0, 8)),
        ("widths", (0.5, 0.5)),
        ("widths", (-1.0,)),
        ("kernels", (3, 4)),
        ("expansions", (0, 2)),
        ("activations", ("tanh",)),
        ("kinds", ("dense",)),
        ("kinds", ("fused", "fused")),
        ("kinds", ("ffn",)),
        ("layout", "resnet"),
        ("stage_channels", (16,)),
        ("stage_channels", (16, 0, 40, 80)),
        ("stage_strides", (1, 2)),
        ("max_depth", -1),
        ("stem_channels", -1),
        ("stem_stride", -1),
        ("head_channels", -1),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object):
    with pytest.raises(ConfigError, match=r"search_space\.[a-z_]+: got"):
        space(**{name: value})


def test_widths_that_give_the_same_network_are_refused():
    with pytest.raises(ConfigError, match=r"search_space.widths: got \[0.75, 1.0\]"):
        space(widths=(0.75, 1.0), stage_channels=(16,), stage_strides=(1,), head_channels=24)
