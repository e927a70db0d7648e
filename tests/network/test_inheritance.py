"""Networks that take over the weights of others: equal ones exactly, smaller ones by slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import search_spaces
from nas.network.inheritance import inherit
from nas.network.space import SearchSpace

SPACES = ("mobilenet", "vit", "darts", "nasbench201", "nasbench_macro", "mnasnet")


def space_of(name: str, channels: int = 3, size: int = 32, classes: int = 10) -> SearchSpace:
    return search_spaces.get(name, input_shape=(channels, size, size), num_classes=classes)


def with_random_weights(network: nn.Module) -> nn.Module:
    torch.manual_seed(7)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if name.endswith("running_var") else tensor.normal_()
    return network


def genotype(space: SearchSpace, default: int, **choices: object) -> tuple[int, ...]:
    """Return the canonical genotype of chosen values; elsewhere the choice in place `default`."""
    named = {name.replace("__", "."): value for name, value in choices.items()}
    places = [
        gene.choices.index(named[gene.name])
        if gene.name in named
        else range(len(gene.choices))[default]
        for gene in space.genes
    ]
    return space.canonical(places)


SMALL = ("mobilenet", "vit", "nasbench201")
"""Spaces whose networks are soon built."""


@pytest.mark.parametrize("name", SPACES)
def test_an_equal_network_becomes_an_exact_copy(name):
    space = space_of(name)
    chosen = space.sample(np.random.default_rng(3))
    source, target = with_random_weights(space.build(chosen)), space.build(chosen)
    assert inherit(target, source) == 1.0
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", [*SMALL, "kinds"])
def test_any_network_takes_from_any_other_and_stays_finite(name):
    rng = np.random.default_rng(5)
    kinds = ("mbconv", "fused", "residual", "extra_dw", "convnext", "ffn")
    images_of = {"input_shape": (3, 32, 32), "num_classes": 10}
    space = (
        search_spaces.get("mobilenet", **images_of, kinds=kinds)
        if name == "kinds"
        else space_of(name)
    )
    images = torch.randn(2, 3, 32, 32)
    for _ in range(3):
        source, target = (space.build(space.sample(rng)) for _ in range(2))
        before = {key: tensor.clone() for key, tensor in source.state_dict().items()}
        assert 0.0 < inherit(target, source) <= 1.0
        assert torch.isfinite(target.eval()(images)).all()
        for key, tensor in source.state_dict().items():
            assert torch.equal(before[key], tensor)


def test_what_is_not_given_keeps_its_initial_values_and_its_random_state():
    space = space_of("mobilenet")
    shallow, deep = genotype(space, 0), genotype(space, -1)
    source, target = space.build(shallow), space.build(deep)
    initial = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    state = torch.get_rng_state()
    share = inherit(target, source)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0.0 < share < 1.0
    own = [key for key in initial if "block3." in key]
    assert own
    assert all(torch.equal(initial[key], target.state_dict()[key]) for key in own)


def test_channels_are_the_first_ones_and_kernels_the_centre():
    space = space_of("mobilenet")
    chosen = {"stage1__depth": 3, "stage1__block1__expansion": 6, "width": 1.0}
    large = genotype(space, 0, **chosen, stage1__block1__kernel=5)
    small = genotype(space, 0, width=0.5, stage1__block1__expansion=4, stage1__block1__kernel=3)
    source, target = with_random_weights(space.build(large)), space.build(small)
    assert inherit(target, source) == 1.0
    theirs, own = source.stage1_block1.layers, target.stage1_block1.layers
    hidden, inputs = own[0].weight.shape[:2]
    assert torch.equal(own[0].weight, theirs[0].weight[:hidden, :inputs])
    assert torch.equal(own[1].running_var, theirs[1].running_var[:hidden])
    assert torch.equal(own[3].weight, theirs[3].weight[:hidden, :, 1:4, 1:4])


def test_a_larger_kernel_computes_what_the_smaller_one_did():
    space = space_of("mobilenet")
    three = genotype(space, 0)
    fives = {gene.name.replace(".", "__"): 5 for gene in space.genes if "kernel" in gene.name}
    five = genotype(space, 0, **fives)
    source, target = with_random_weights(space.build(three)).eval(), space.build(five).eval()
    images = torch.randn(2, 3, 32, 32)
    assert inherit(target, source) == 1.0
    torch.testing.assert_close(target(images), source(images))


def test_a_block_with_attention_gives_the_other_layers_to_one_without():
    space = space_of("mobilenet")
    values = {"stage1__block1__expansion": 4}
    attending = genotype(space, 0, **values, stage1__block1__squeeze_excite=True)
    plain = genotype(space, 0, **values, stage1__block1__squeeze_excite=False)
    source, target = with_random_weights(space.build(attending)), space.build(plain)
    assert inherit(target, source) == 1.0
    theirs, own = source.stage1_block1.layers, target.stage1_block1.layers
    assert torch.equal(own[-2].weight, theirs[-2].weight)


def test_heads_are_sliced_from_queries_keys_and_values_each():
    space = space_of("vit")
    wide = genotype(space, -1, width=128, pooling="token", block1__heads=4)
    narrow = genotype(space, -1, width=64, pooling="token", block1__heads=2)
    source, target = with_random_weights(space.build(wide)), space.build(narrow)
    assert inherit(target, source) == 1.0
    theirs = source.block1_attention.inputs.weight.view(3, 4, 32, 128)
    own = target.block1_attention.inputs.weight.view(3, 2, 32, 64)
    assert torch.equal(own, theirs[:, :2, :, :64])


def test_positions_are_interpolated_to_another_grid():
    small, large = (
        search_spaces.get("vit", input_shape=(3, size, size), num_classes=10, patches=(4,))
        for size in (32, 64)
    )
    chosen = (0,) * len(small.genes)
    source, target = with_random_weights(small.build(chosen)), large.build(chosen)
    assert inherit(target, source) == 1.0
    before, now = source.tokens, target.tokens
    images = before.positions.detach()[:, 1:].transpose(1, 2).unflatten(2, before.grid)
    expected = nn.functional.interpolate(images, now.grid, mode="bicubic")
    own = now.positions.detach()
    torch.testing.assert_close(own[:, 1:].transpose(1, 2).unflatten(2, now.grid), expected)
    assert torch.equal(own[:, :1], before.positions[:, :1])


def test_a_grey_image_gives_what_it_gave_in_three_equal_channels():
    chosen = genotype(space_of("mobilenet"), 0)
    source = with_random_weights(space_of("mobilenet").build(chosen)).eval()
    target = space_of("mobilenet", channels=1).build(chosen).eval()
    inherit(target, source)
    grey = torch.randn(2, 1, 32, 32)
    expected = source(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(target(grey), expected, rtol=1e-4, atol=1e-3)


def test_outputs_of_another_meaning_are_not_inherited():
    space = space_of("vit")
    chosen = space.sample(np.random.default_rng(0))
    source, target = with_random_weights(space.build(chosen)), space.build(chosen)
    initial = target.classifier.linear.weight.detach().clone()
    share = inherit(target, source, outputs=False)
    assert share < 1.0
    assert torch.equal(target.classifier.linear.weight, initial)
    assert torch.equal(target.classifier.norm.weight, source.classifier.norm.weight)
