from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from whole_costs import costs_of

from nas.core.errors import ConfigError, GenotypeError
from nas.core.files import hashed
from nas.core.space import Gene
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces.layers.convolution import ConvNormAct


@dataclass(frozen=True, kw_only=True)
class OneConvolution(SearchSpace):
    """The least that a space has to say: its genes, and one block that is the whole network."""

    channels: tuple[int, ...] = (4, 8)

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (
            Gene("channels", self.channels),
            Gene("activation", ("relu", "hardswish"), ordinal=False),
        )

    def blocks(self) -> Iterator[Block]:
        yield Block("network", self._network)

    def _network(self, chosen: Choices) -> ModuleSpec:
        return ModuleSpec(
            Whole,
            {
                "classes": self.num_classes,
                "channels": chosen["channels"],
                "activation": chosen["activation"],
            },
        )


class Whole(nn.Module):
    def __init__(self, shape: list[int], classes: int, channels: int, activation: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.activation = {"relu": nn.ReLU, "hardswish": nn.Hardswish}[activation]()
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.activation(self.conv(x)).mean((2, 3)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Staged(SearchSpace):
    """Stages of up to two equal convolutions, each stage with a depth and a kernel size."""

    stages: int

    @property
    def genes(self) -> tuple[Gene, ...]:
        stages = range(self.stages)
        genes = [(Gene(f"d{i}", (0, 1, 2)), Gene(f"k{i}", (1, 3, 5))) for i in stages]
        return tuple(gene for pair in genes for gene in pair)

    def blocks(self) -> Iterator[Block]:
        for i in range(self.stages):
            for place in (1, 2):
                yield Block(f"stage{i}_block{place}", partial(self._conv, i, place))
        classifier = ModuleSpec(
            Whole, {"classes": self.num_classes, "channels": 4, "activation": "relu"}
        )
        yield Block("whole", lambda _: classifier)

    def _conv(self, stage: int, place: int, chosen: Choices) -> ModuleSpec | None:
        if chosen[f"d{stage}"] < place:
            return None
        arguments = {"outputs": 4, "kernel": chosen[f"k{stage}"]}
        return ModuleSpec(ConvNormAct, arguments)


@pytest.fixture
def space() -> OneConvolution:
    return OneConvolution(input_shape=(3, 8, 8), num_classes=5)


def test_genes_and_a_network_are_all_that_a_space_needs(space: OneConvolution):
    assert space.cardinalities == (2, 2)
    assert space.decode((1, 0)) == {"channels": 8, "activation": "relu"}
    assert space.build((1, 0))(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert space.size == 4
    assert space.references() == {}


def test_samples_reach_every_architecture_equally_often(space: OneConvolution):
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(400)]
    counts = [samples.count((i, j)) for i in range(2) for j in range(2)]
    assert sum(counts) == 400
    assert min(counts) > 70


def test_costs_are_one_row_a_genotype(space: OneConvolution):
    table = space.costs([(0, 0), (1, 0)])
    assert list(table) == [
        "params_m",
        "macs_m",
        "activations_m",
        "peak_activation_mb",
        "model_size_mb",
    ]
    params = np.array([4 * 27 + 4 + 25, 8 * 27 + 8 + 45])
    macs = np.array([64 * 4 * 27 + 20, 64 * 8 * 27 + 40])
    np.testing.assert_allclose(table["params_m"], params / 1e6, rtol=1e-12)
    np.testing.assert_allclose(table["macs_m"], macs / 1e6, rtol=1e-12)
    activations = np.array([64 * 4 + 5, 64 * 8 + 5])
    np.testing.assert_allclose(table["activations_m"], activations / 1e6, rtol=1e-12)
    np.testing.assert_allclose(table["model_size_mb"], 4 * params / 1e6, rtol=1e-12)
    np.testing.assert_allclose(
        table["peak_activation_mb"], 4 * (192 + 64 * np.array([4, 8])) / 1e6, rtol=1e-12
    )


def test_costs_of_nothing_have_the_columns(space: OneConvolution):
    table = space.costs([])
    assert table.shape == (0, 5)
    assert set(table.dtypes) == {np.dtype(float)}


def test_equal_seeds_build_equal_networks_and_leave_the_seed(space: OneConvolution):
    torch.manual_seed(1)
    first, again = space.build((1, 0)), space.build((1, 0))
    torch.manual_seed(2)
    other = space.build((1, 0))
    assert torch.equal(first.network.conv.weight, again.network.conv.weight)
    assert not torch.equal(first.network.conv.weight, other.network.conv.weight)


def test_identity_is_that_of_the_class_and_all_settings(space: OneConvolution):
    others = [
        OneConvolution(input_shape=(3, 8, 9), num_classes=5),
        OneConvolution(input_shape=(3, 8, 8), num_classes=6),
        OneConvolution(input_shape=(3, 8, 8), num_classes=5, channels=(4, 8, 16)),
    ]
    assert len({space.space_id, *(other.space_id for other in others)}) == 4
    assert OneConvolution(input_shape=[3, 8, 8], num_classes=5).space_id == space.space_id
    assert pickle.loads(pickle.dumps(space)) == space  # noqa: S301 - as Ray sends it


def test_identity_does_not_depend_on_how_settings_were_written(space: OneConvolution):
    for channels in ([4, 8], (4.0, 8.0), tuple(np.array([4, 8])), np.array([4.0, 8.0]).tolist()):
        written = OneConvolution(input_shape=(3.0, 8, 8), num_classes=5, channels=channels)  # type: ignore[arg-type]
        assert hashed(written, 16) == hashed(space, 16)
    whole = OneConvolution(input_shape=(3, 8, 8), num_classes=5, channels=(4.0, 8.0))  # type: ignore[arg-type]
    assert whole.architecture((1, 0)).arch_id == space.architecture((1, 0)).arch_id
    assert space.architecture([np.int64(1), 0]) == space.architecture((1, 0))


def test_truth_values_are_no_numbers():
    ones = [OneConvolution(input_shape=(3, 8, 8), num_classes=5, channels=(n,)) for n in (1, True)]
    assert ones[0].space_id != ones[1].space_id


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ((0,), r"got 1 genes, expected 2"),
        ((0, 0, 0), r"got 3 genes, expected 2"),
        ((2, 0), r"gene channels: got 2, expected an index 0..1 into \[4, 8\]"),
        ((0, -1), r"gene activation: got -1, expected an index 0..1 into \['relu', 'hardswish'\]"),
        ((0, 1.0), r"gene activation: got 1.0"),
        ((True, 0), r"gene channels: got True"),
        (("1", 0), r"gene channels: got '1'"),
        ((None, 0), r"gene channels: got None"),
    ],
)
def test_a_wrong_genotype_is_refused_by_gene(
    space: OneConvolution, genotype: tuple[object, ...], message: str
):
    for method in (space.check, space.canonical, space.build, space.place, space.architecture):
        with pytest.raises(GenotypeError, match=message):
            method(genotype)


@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8), (1, 3, 8, 8)])
def test_a_wrong_input_shape_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ConfigError, match="input_shape"):
        OneConvolution(input_shape=shape, num_classes=2)


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="num_classes: got 1, expected 2 or more"):
        OneConvolution(input_shape=(1, 8, 8), num_classes=1)


@dataclass(frozen=True, kw_only=True)
class Deployed(OneConvolution):
    """The same networks, each deployed in two ways."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (*super().genes, Gene("precision", ("fp32", "int8"), ordinal=False))

    @property
    def deployment_genes(self) -> tuple[str, ...]:
        return ("precision",)


def test_a_choice_of_deployment_leaves_the_network_and_makes_another_architecture(
    space: OneConvolution,
):
    assert space.deployment((0, 0)) == {}
    deployed = Deployed(input_shape=space.input_shape, num_classes=space.num_classes)
    assert deployed.size == 2 * space.size
    assert deployed.canonical((1, 0, 1)) == (1, 0, 1)
    assert deployed.active((1, 0, 1)) == (True, True, True)
    assert deployed.deployment((1, 0, 1)) == {"precision": "int8"}
    assert costs_of(deployed, (1, 0, 1)) == costs_of(deployed, (1, 0, 0)) == costs_of(space, (1, 0))
    first, second = (deployed.architecture((1, 0, i)).arch_id for i in range(2))
    assert first != second


def test_the_size_of_a_space_of_many_genes_that_several_blocks_share() -> None:
    """Each stage's genes concern its own blocks only, so that the stages' choices multiply."""
    stages = 14
    space = Staged(input_shape=(1, 8, 8), num_classes=2, stages=stages)
    assert len(space.genes) == 2 * stages
    # A stage without a block has no kernel to choose; else it has one of three.
    assert space.size == (1 + 2 * 3) ** stages
    small = Staged(input_shape=(1, 8, 8), num_classes=2, stages=2)
    every = np.indices(small.cardinalities).reshape(4, -1).T
    assert small.size == len(np.unique(small.canonicalise(every), axis=0))
