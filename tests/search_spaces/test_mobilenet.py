from __future__ import annotations

import pytest
import torch

import search_spaces
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace


def space(**settings: object) -> SearchSpace:
    return search_spaces.get(
        "mobilenet", **{"input_shape": (3, 32, 32), "num_classes": 10, **settings}
    )


def test_mobilenet_v2_lies_in_the_space():
    """MobileNetV2 has 3,504,872 parameters and 300 million multiply-adds.

    The first is the count of torchvision's network, the second that of Sandler et al., table 4.
    """
    v2 = space(
        input_shape=(3, 224, 224),
        num_classes=1000,
        resolutions=(224,),
        widths=(1.0,),
        kernels=(3,),
        expansions=(1, 6),
        squeeze_excite=(False,),
        stem_channels=32,
        stage_channels=(16, 24, 32, 64, 96, 160, 320),
        stage_strides=(1, 2, 2, 2, 1, 2, 1),
        max_depth=4,
        head_channels=1280,
    )
    depths = iter([1, 2, 3, 4, 3, 3, 1])
    genotype = []
    for gene in v2.genes:
        if gene.name.endswith("depth"):
            genotype.append(next(depths) - 1)
        elif gene.name.endswith("expansion"):
            genotype.append(0 if gene.name.startswith("stage1.") else 1)
        else:
            genotype.append(0)
    costs = v2.count(genotype)
    assert costs.params == 3_504_872
    assert costs.macs == 300_774_272
    assert [layer.kind for layer in costs.layers].count("depthwise3") == 17


@pytest.mark.parametrize(
    ("squeeze_excite", "params", "macs"),
    # Squeezing 16 channels to 8 and back: 16 * 8 + 8 and 8 * 16 + 16 parameters.
    [(0, 898, 38_560), (1, 898 + 136 + 144, 38_560 + 256)],
)
def test_counts_by_hand(squeeze_excite: int, params: int, macs: int):
    small = space(
        input_shape=(1, 8, 8),
        resolutions=(8,),
        widths=(1.0,),
        kernels=(3,),
        expansions=(2,),
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
    costs = small.count((0, 0, 0, 0, 0, squeeze_excite))
    assert (costs.params, costs.macs) == (params, macs)


def test_resolution_scales_the_operations_and_not_the_parameters():
    sizes = space(resolutions=(16, 32))
    small, large = ([0, i] + [0] * (len(sizes.genes) - 2) for i in range(2))
    assert sizes.count(small).params == sizes.count(large).params
    assert sizes.count(large).macs / sizes.count(small).macs == pytest.approx(4, rel=0.01)


def test_images_that_are_not_square_keep_their_shape():
    wide = space(input_shape=(3, 20, 30), resolutions=(10, 20))
    sides = [wide.network((0, i) + (0,) * (len(wide.genes) - 2))[1]["image_size"] for i in range(2)]
    assert sides == [[10, 15], [20, 30]]


def test_default_resolutions_are_the_images_own_and_three_quarters_of_it():
    assert space().resolutions == (24, 32)
    assert space(input_shape=(1, 28, 40)).resolutions == (21, 28)
    assert space(input_shape=(1, 1, 1)).resolutions == (1,)


def test_genes_beyond_the_depth_of_their_stage_are_folded():
    two = space(stage_channels=(16, 24), stage_strides=(1, 2), max_depth=2)
    stage = (0, 1, 2, 1, 1, 2, 1)  # depth 1: its second block is inactive
    assert two.canonical((2, 1, *stage, *stage)) == (2, 1, *(0, 1, 2, 1, 0, 0, 0) * 2)
    deep = (1, *stage[1:])
    assert two.canonical((2, 1, *deep, *deep)) == (2, 1, *deep, *deep)


def test_blocks_are_residual_where_shapes_allow():
    network = space().build([n - 1 for n in space().cardinalities])
    assert [block.residual for block in network.blocks] == [True] * 3 + [False, True, True] * 3


def test_channels_are_multiples_of_eight_and_never_lose_a_tenth():
    from search_spaces.mobilenet import divisible_by_8

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
        ("widths", ()),
        ("widths", (0.5, 0.5)),
        ("widths", (-1.0,)),
        ("kernels", (3, 4)),
        ("expansions", (0, 2)),
        ("stage_channels", ()),
        ("stage_channels", (16, 0, 40, 80)),
        ("stage_strides", (1, 2)),
        ("max_depth", 0),
        ("stem_channels", 0),
        ("stem_stride", 0),
        ("head_channels", 0),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object):
    with pytest.raises(ConfigError, match=f"search_space.{name}: got"):
        space(**{name: value})


def test_widths_that_give_the_same_network_are_refused():
    with pytest.raises(ConfigError, match=r"search_space.widths: got \[0.75, 1.0\]"):
        space(widths=(0.75, 1.0), stage_channels=(16,), stage_strides=(1,), head_channels=24)
