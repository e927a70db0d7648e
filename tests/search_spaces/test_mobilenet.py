from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from whole_costs import costs_of

import search_spaces
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace


def space(**settings: object) -> SearchSpace:
    return search_spaces.get(
        "mobilenet", **{"input_shape": (3, 32, 32), "num_classes": 10, **settings}
    )


@pytest.mark.parametrize(
    ("layout", "name", "params", "macs_m"),
    [
        # Parameters and multiply-adds of torchvision's networks at 224 pixels and 1,000 classes
        # (torchvision/models: num_params and _ops of the IMAGENET1K_V1 weights); MobileNetV2 has
        # 300 M in Sandler et al., table 4, MnasNet-B1 315 M in Tan et al., table 1.
        ("mobilenet_v2", "mobilenet_v2", 3_504_872, 300.8),
        ("mobilenet_v3_large", "mobilenet_v3_large", 5_483_032, 216.6),
        ("mobilenet_v3_small", "mobilenet_v3_small", 2_542_856, 56.5),
        ("mnasnet", "mnasnet_b1", 4_383_312, 314.4),
    ],
)
def test_published_networks(layout: str, name: str, params: int, macs_m: float):
    at = space(input_shape=(3, 224, 224), num_classes=1000, layout=layout)
    costs = costs_of(at, at.references()[name])
    assert costs.params == params
    assert costs.macs / 1e6 == pytest.approx(macs_m, rel=0.005)


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
