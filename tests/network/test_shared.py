"""One set of weights for all networks of a space: equal outputs and gradients, nothing copied."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import search_spaces
from nas.core.errors import ConfigError, HwnasError
from nas.core.space import Gene
from nas.network import shared as shared_module
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.inheritance import declared_inputs, layers_of
from nas.network.module import AdaptingLayer
from nas.network.recalibration import recalibrate
from nas.network.shared import SharedWeights, extreme
from nas.network.space import SearchSpace

KINDS = ("mbconv", "fused", "residual", "extra_dw", "convnext", "ffn")

SETTINGS = {
    "mobilenet": {"stage_channels": (16, 24), "stage_strides": (1, 2), "max_depth": 2},
    "kinds": {"stage_channels": (16,), "stage_strides": (2,), "max_depth": 2, "kernels": (3, 5)},
    "vit": {"depths": (1, 2), "widths": (64, 128), "patches": (4, 8)},
    "darts": {
        "channels": (4, 6),
        "cells_per_stage": (1,),
        "operations_per_edge": ("sep_conv_3x3", "skip_connect"),
    },
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    "nasbench_macro": {},
    "mnasnet": {},
}
"""Small variants of all registered spaces."""


class KernelMatrix(AdaptingLayer):
    """A depthwise convolution whose smaller kernels are maps of larger ones (Once-for-All)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.channels, self.kernel = channels, kernel
        self.weight = nn.Parameter(torch.randn(channels, 1, kernel, kernel))
        if kernel == 5:
            self.matrix = nn.Parameter(torch.eye(9) + 0.1 * torch.randn(9, 9))

    def forward(self, x):
        padding = self.kernel // 2
        return nn.functional.conv2d(x, self.weight, padding=padding, groups=self.channels)

    def tensors_of(self, other, tensors):
        if other.kernel == self.kernel:
            return tensors
        centre = tensors["weight"][:, :, 1:4, 1:4].flatten(2)
        return {"weight": (centre @ tensors["matrix"]).unflatten(2, (3, 3))}


class Elastic(nn.Module):
    def __init__(self, input_shape, channels, kernel):
        super().__init__()
        self.point = nn.Conv2d(input_shape[0], channels, 1)
        self.depth = KernelMatrix(channels, kernel)

    def forward(self, x):
        return self.depth(self.point(x))


class Head(nn.Sequential):
    def __init__(self, input_shape, num_classes):
        pooling = nn.AdaptiveAvgPool2d(1)
        super().__init__(pooling, nn.Flatten(), nn.Linear(input_shape[0], num_classes))


@dataclass(frozen=True, kw_only=True)
class UserSpace(SearchSpace):
    """A space of one's own, as docs/ARCHITECTURE.md says that one is declared."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        own = (Gene("width", (4, 8)), Gene("depth", (1, 2, 3)))
        return (*own, *(Gene(f"kernel{i}", (3, 5)) for i in range(3)))

    def blocks(self) -> Iterator[Block]:
        for i in range(3):
            yield Block(f"block{i}", partial(self._block, i))
        yield Block("head", lambda _: ModuleSpec(Head, {"num_classes": self.num_classes}))

    def _block(self, i: int, chosen: Choices) -> ModuleSpec | None:
        if chosen["depth"] <= i:
            return None
        # Channels fall and rise, so that no variant has the largest of everything.
        channels = chosen["width"] * (3 if (i == 1) == (chosen["width"] == 8) else 1)
        return ModuleSpec(Elastic, {"channels": channels, "kernel": chosen[f"kernel{i}"]})


def space_of(name: str) -> SearchSpace:
    images = {"input_shape": (3, 16, 16), "num_classes": 5}
    if name == "user":
        return UserSpace(**images)
    if name == "kinds":
        fewer = {"expansions": (1, 2), "activations": ("relu",), "widths": (0.5, 1.0)}
        return search_spaces.get("mobilenet", **images, **SETTINGS[name], **fewer, kinds=KINDS)
    return search_spaces.get(name, **images, **SETTINGS[name])


def randomised(shared: SharedWeights) -> SharedWeights:
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return shared


NAMES = [n for n in search_spaces.names() if not search_spaces.component(n).pretrained]


@pytest.fixture(scope="module", params=[*NAMES, "kinds", "user"])
def shared(request: pytest.FixtureRequest) -> SharedWeights:
    torch.manual_seed(0)
    return randomised(SharedWeights(space_of(request.param)))


def some(space: SearchSpace, count: int = 3) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(1)
    return [space.sample(rng) for _ in range(count)]


def test_every_registered_space_is_among_them():
    assert set(NAMES) == set(SETTINGS) - {"kinds"}


def test_an_extracted_network_has_equal_outputs_and_gradients(shared):
    images = torch.randn(4, *shared.space.input_shape)
    for genotype in some(shared.space):
        shared.zero_grad()
        network = shared.extract(genotype)
        shared.choose(genotype)
        outputs = shared(images)
        torch.testing.assert_close(outputs, network(images), rtol=0, atol=1e-6)
        weights = torch.randn_like(outputs)
        (outputs * weights).sum().backward()
        (network(images) * weights).sum().backward()
        own = [p.grad for p in network.parameters() if p.grad is not None]
        given = [p.grad for p in shared.parameters() if p.grad is not None]
        if any(shared_module._adapts(layer) for layer in network.modules()):
            continue  # its gradients are those of a map of the shared weights
        # What is not in the network has no gradient, so that sums are equal.
        assert len(given) == len(own)
        norms = [sum((g.double() ** 2).sum() for g in each).sqrt() for each in (own, given)]
        torch.testing.assert_close(*norms, rtol=1e-5, atol=1e-7)


def test_gradients_reach_the_part_that_the_network_has():
    torch.manual_seed(0)
    space = space_of("mobilenet")
    shared = randomised(SharedWeights(space))
    images = torch.randn(4, *space.input_shape)
    genotype = some(space)[0]
    network = shared.extract(genotype)
    shared.choose(genotype)
    for each in (shared, network):
        (each(images) ** 2).sum().backward()
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.copy_(
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
    gradients = shared.extract(genotype)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(gradients.get_parameter(name), parameter.grad, msg=name)


def test_nothing_is_copied_but_by_a_rule_of_the_layer(shared):
    areas = {p.untyped_storage().data_ptr() for p in shared.parameters()}
    for genotype in some(shared.space):
        for block in shared.network(genotype).children():
            for name, tensor in block.tensors.items():
                path = name.rpartition(".")[0]
                ruled = shared_module._adapts(block.block.get_submodule(path))
                joint = path in getattr(block.block, "joint", {})
                assert ruled or joint or tensor.untyped_storage().data_ptr() in areas


@pytest.mark.parametrize("name", ["user", "nasbench201"])
def test_shapes_are_the_largest_of_all_networks_and_not_larger(name):
    space = space_of(name)
    shared = SharedWeights(space)
    most: dict[str, tuple[int, ...]] = {}
    for row in space.every(10**5)[:: 1 if name == "user" else 50]:
        with torch.device("meta"):
            network = space.build(row)
        for block in network.placed_blocks:
            for layer in layers_of(network.get_submodule(block.name), declared_inputs(block)):
                if not shared_module._adapts(layer.module):
                    role = shared_module._name(block.module, layer.role)
                    for own, parameter in layer.own_parameters.items():
                        key = f"shared_{block.name}.{role} 0.{own}"
                        known = most.get(key, parameter.shape)
                        most[key] = tuple(map(max, zip(known, parameter.shape, strict=True)))
    shapes = {name: tuple(parameter.shape) for name, parameter in shared.named_parameters()}
    assert {key: shapes[key] for key in most} == most


def test_what_was_made_for_less_refuses_more():
    images = {"input_shape": (3, 16, 16), "num_classes": 5}
    small, large = (
        search_spaces.get("mobilenet", **images, **SETTINGS["mobilenet"] | {"stage_channels": c})
        for c in ((16, 24), (16, 48))
    )
    shared = SharedWeights(small)
    shared.space = large
    with pytest.raises(HwnasError, match="more than"):
        shared.network([len(gene.choices) - 1 for gene in large.genes])


def test_kept_blocks_are_bounded(monkeypatch):
    monkeypatch.setattr(shared_module, "SKELETONS", 8)
    shared = SharedWeights(space_of("user"))
    images = torch.randn(2, 3, 16, 16)
    for genotype in some(shared.space, 20):
        shared.choose(genotype)
        torch.testing.assert_close(shared(images), shared.extract(genotype)(images))
    assert shared._skeletons.cache_info().currsize == 8


def test_a_copy_is_its_own():
    shared = SharedWeights(space_of("nasbench201"))
    other = copy.deepcopy(shared)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    genotype = some(shared.space)[0]
    assert float(shared.extract(genotype).state_dict()["stem.conv.weight"].abs().sum()) > 0
    other.choose(genotype)
    assert not other(torch.randn(4, 3, 16, 16)).any()


@pytest.mark.parametrize("name", ["mobilenet", "vit", "nasbench201"])
def test_choices_of_a_split_gene_share_nothing(name: str):
    space = space_of(name)
    position = max(range(len(space.genes)), key=lambda i: len(space.genes[i].choices))
    shared = SharedWeights(space, split=space.genes[position].name)
    drawn = space.samples(100, np.random.default_rng(0)).tolist()
    one = next(tuple(row) for row in drawn if row[position] == 0)
    other = next(tuple(row) for row in drawn if row[position] == 1)
    # At first they are what one set of weights gives.
    plain = SharedWeights(space)
    plain.load_state_dict({n: t for n, t in shared.state_dict().items() if n in plain.state_dict()})
    images = torch.randn(4, *space.input_shape)
    for genotype in (one, other):
        shared.choose(genotype)
        plain.choose(genotype)
        assert torch.equal(shared(images), plain(images))
    shared.zero_grad()
    shared.choose(one)
    shared(images).square().sum().backward()
    of_one = {n for n, p in shared.named_parameters() if p.grad is not None}
    shared.zero_grad()
    shared.choose(other)
    shared(images).square().sum().backward()
    of_other = {n for n, p in shared.named_parameters() if p.grad is not None}
    assert of_one
    assert of_other
    assert not of_one & of_other
    randomised(shared)
    for genotype in (one, other):
        shared.choose(genotype)
        torch.testing.assert_close(
            shared.extract(genotype)(images), shared(images), rtol=1e-5, atol=1e-5
        )


def test_recalibrated_statistics_are_those_of_the_images():
    space = space_of("mobilenet")
    shared = randomised(SharedWeights(space))
    images = torch.randn(32, *space.input_shape)
    network = shared.extract(some(space)[0])
    assert recalibrate(network, [images]) == 32
    mean = network.stem[0](images).mean((0, 2, 3))
    torch.testing.assert_close(network.stem[1].running_mean, mean.detach(), rtol=1e-4, atol=1e-5)
    shared.choose(some(space)[0])
    # One batch: what evaluation gives by its statistics is what training gives by the batch's.
    torch.testing.assert_close(network(images), shared(images), rtol=0.05, atol=0.05)


def test_auxiliary_classifiers_and_recomputation_take_part():
    images = {"input_shape": (3, 32, 32), "num_classes": 5}
    space = search_spaces.get("darts", **images, **SETTINGS["darts"])
    shared = SharedWeights(space, auxiliary=True)
    shared.choose(some(space)[0])
    pixels = torch.randn(4, 3, 32, 32)
    gradients = []
    for recompute in (False, True):
        shared.recompute = recompute
        shared.zero_grad()
        outputs = shared.all_outputs(pixels)
        assert len(outputs) == 2
        sum(each.square().sum() for each in outputs).backward()
        gradients.append([p.grad for p in shared.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_extremes_are_larger_and_smaller_than_all_others():
    space = space_of("mobilenet")
    macs = space.costs([extreme(space, largest=x) for x in (False, True)])["macs_m"]
    others = space.costs(space.samples(50, np.random.default_rng(0)))["macs_m"]
    assert macs[0] <= others.min() <= others.max() <= macs[1]


def test_blocks_of_too_many_cases_are_refused(monkeypatch):
    monkeypatch.setattr("nas.network.plan.MOST_CELLS", 4)
    with pytest.raises(ConfigError, match="combinations of such genes"):
        list(space_of("mobilenet").cases(lambda spec, shapes: (None, shapes[0])))
