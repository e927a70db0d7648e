"""What follows from a declaration of blocks, on a space that uses everything that one may say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from whole_costs import costs_of, count

from nas.core.space import Gene, Genotype, Graph
from nas.network import table
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from nas.network.table import BlockTable

SIZES = {"channels": 2, "depth": 3, "second": 2, "third": 2, "source": 3, "operation": 3, "wide": 2}
ALL = list(itertools.product(*(range(n) for n in SIZES.values())))


class Conv(nn.Module):
    def __init__(self, input_shape: list[int], outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], outputs, kernel, padding=kernel // 2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class ActConv(Conv):
    """Starts with what works in place where nobody else needs the input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(x))


class Concat(nn.Module):
    def __init__(self, *input_shapes: list[int]) -> None:
        super().__init__()

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


class Head(nn.Module):
    def __init__(self, input_shape: list[int], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_shape[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class Tangle(SearchSpace):
    """A stage of variable depth, a branch from one of three places, and a join."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(name, tuple(range(n))) for name, n in SIZES.items())

    def blocks(self) -> Iterator[Block]:
        yield Block(
            "stem", lambda chosen: ModuleSpec(Conv, {"outputs": 4 + 4 * chosen["channels"]})
        )
        yield Block("second", self._second)
        yield Block("third", self._third)
        yield Block("branch", self._branch)
        yield Block("join", lambda _: ModuleSpec(Concat, inputs=("branch", "third")))
        yield Block("side", lambda _: ModuleSpec(Head, {"classes": 3}, ("stem",)), auxiliary=True)
        yield Block("head", lambda _: ModuleSpec(Head, {"classes": self.num_classes}))

    def _second(self, chosen: Choices) -> ModuleSpec | None:
        if chosen["depth"] < 1:
            return None
        return ModuleSpec(ActConv, {"outputs": 6, "kernel": 1 + 2 * chosen["second"]})

    def _third(self, chosen: Choices) -> ModuleSpec | None:
        if chosen["depth"] < 2:
            return None
        return ModuleSpec(ActConv, {"outputs": 8, "kernel": 1 + 2 * chosen["third"]})

    def _branch(self, chosen: Choices) -> ModuleSpec | str:
        source = ("input", "stem", "second")[chosen["source"]]
        if chosen["operation"] == 0:
            return source
        module = (Conv, ActConv)[chosen["operation"] - 1]
        return ModuleSpec(module, {"outputs": 16 + 16 * chosen["wide"]}, (source,))


@pytest.fixture(scope="module")
def space() -> Tangle:
    return Tangle(input_shape=(3, 8, 8), num_classes=5)


def names(space: SearchSpace, genotype: Genotype) -> dict[str, tuple[str, ...]]:
    return {block.name: block.inputs for block in space.place(genotype)}


def test_a_block_without_a_module_passes_on_what_stood_before_it_or_what_it_names(space: Tangle):
    assert names(space, (0, 0, 0, 0, 2, 0, 0)) == {
        "stem": ("input",),
        "join": ("stem", "stem"),
        "head": ("join",),
    }
    assert names(space, (0, 2, 0, 0, 0, 1, 0)) == {
        "stem": ("input",),
        "second": ("stem",),
        "third": ("second",),
        "branch": ("input",),
        "join": ("branch", "third"),
        "head": ("join",),
    }


def test_genes_that_no_block_reads_are_folded(space: Tangle):
    # Depth 1: `third` is not read; operation 0: neither is `wide`.
    assert space.active((1, 1, 1, 1, 2, 0, 1)) == (True, True, True, False, True, True, False)
    assert space.canonical((1, 1, 1, 1, 2, 0, 1)) == (1, 1, 1, 0, 2, 0, 0)
    assert space.decode((1, 1, 1, 1, 2, 0, 1)) == {
        "channels": 1,
        "depth": 1,
        "second": 1,
        "source": 2,
        "operation": 0,
    }


def test_the_size_is_the_number_of_canonical_genotypes(space: Tangle):
    assert space.size == len({space.canonical(genotype) for genotype in ALL})
    assert space.size == 2 * (1 + 2 + 4) * 3 * (1 + 2 * 2)


def test_choices_that_give_the_same_module_are_one():
    @dataclass(frozen=True, kw_only=True)
    class Rounded(Tangle):
        """Eight channels are the least: three of four widths are the same at depth 1."""

        @property
        def genes(self) -> tuple[Gene, ...]:
            return Gene("deep", (False, True)), Gene("width", (1, 5, 8, 16)), Gene("kernel", (1, 3))

        def blocks(self) -> Iterator[Block]:
            yield Block("conv", self._conv)
            yield Block("extra", self._extra)
            yield Block("head", lambda _: ModuleSpec(Head, {"classes": self.num_classes}))

        def _conv(self, chosen: Choices) -> ModuleSpec:
            least = 8 if not chosen["deep"] else 2
            outputs = max(least, chosen["width"])
            return ModuleSpec(Conv, {"outputs": outputs, "kernel": chosen["kernel"]})

        def _extra(self, chosen: Choices) -> ModuleSpec | None:
            return ModuleSpec(Conv, {"outputs": 4}) if chosen["deep"] else None

    space = Rounded(input_shape=(3, 8, 8), num_classes=5)
    every = list(itertools.product(range(2), range(4), range(2)))
    assert space.canonical((0, 2, 1)) == space.canonical((0, 1, 1)) == (0, 0, 1)
    assert space.canonical((0, 3, 1)) == (0, 3, 1)
    assert space.canonical((1, 2, 1)) == (1, 2, 1)
    assert space.size == len({space.canonical(genotype) for genotype in every}) == 2 * 2 + 4 * 2


def test_costs_equal_those_of_a_trace_of_the_whole_network_for_every_genotype(space: Tangle):
    table = space.costs(ALL)
    assert len(table) == len(ALL)
    for genotype, row in zip(ALL, table.itertuples(), strict=True):
        with torch.device("meta"):
            network = space.build(genotype)
        whole = count(network, space.input_shape)
        assert costs_of(space, genotype) == whole
        assert row.params_m == whole.params / 1e6
        assert row.macs_m == whole.macs / 1e6
        assert row.activations_m == whole.activations / 1e6
        assert row.peak_activation_mb == whole.peak_activation_bytes / 1e6
        assert row.model_size_mb == whole.model_bytes / 1e6


def test_costs_do_not_depend_on_what_was_counted_before():
    shape = (3, 9, 7)
    one_by_one, at_once = (Tangle(input_shape=shape, num_classes=n) for n in (4, 4))
    rows = [one_by_one.costs([genotype]).to_numpy()[0] for genotype in reversed(ALL)]
    np.testing.assert_array_equal(at_once.costs(np.array(ALL)).to_numpy(), rows[::-1])


def test_a_table_that_would_be_too_large_is_looked_up_row_by_row(
    space: Tangle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table, "MOST_CELLS", 1)
    sparse = Tangle(input_shape=(3, 8, 8), num_classes=6)
    assert not any(table.dense for table in sparse._plan.tables[1:4])
    dense = space.costs(ALL)
    difference = sparse.costs(ALL)["macs_m"] - dense["macs_m"]
    assert difference.round(9).nunique() == 14  # one more class, for each number of channels
    for genotype in ALL[::7]:
        assert sparse.canonical(genotype) == space.canonical(genotype)
    with pytest.raises(ValueError, match="size"):
        _ = sparse.size


def test_the_network_runs_the_blocks(space: Tangle):
    genotype = (1, 2, 1, 1, 1, 1, 0)
    network = space.build(genotype).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        stem = network.stem(x)
        third = network.third(network.second(stem))
        expected = network.head(torch.cat([network.branch(stem), third], 1))
        assert torch.equal(network(x), expected)


def test_auxiliary_classifiers_take_part_in_training_only(space: Tangle):
    genotype = (1, 2, 1, 1, 1, 1, 0)
    plain, trained = space.build(genotype), space.build(genotype, auxiliary=True)
    x = torch.randn(2, 3, 8, 8)
    logits, side = trained.all_outputs(x)
    assert torch.equal(logits, trained(x))
    assert side.shape == (2, 3)
    assert len(plain.all_outputs(x)) == 1
    trained.drop_auxiliary()
    assert trained.state_dict().keys() == plain.state_dict().keys()
    assert len(trained.all_outputs(x)) == 1


def test_mutation_changes_as_many_active_genes_as_it_says(space: Tangle):
    rng = np.random.default_rng(0)
    for genes in (1, 2):
        for _ in range(100):
            old = space.sample(rng)
            new = space.mutate(old, rng, genes)
            both = np.array(space.active(old)) & np.array(space.active(new))
            decided = {i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b}
            assert new == space.canonical(new) != old
            assert sum(both[i] for i in decided) <= genes
            # Genes that changed without being counted are those that became active or inactive.
            assert len([i for i in decided if space.active(old)[i]]) >= 1


def test_mutation_reaches_every_choice_of_genes_that_become_active(space: Tangle):
    rng = np.random.default_rng(0)
    shallow = (0, 0, 0, 0, 0, 0, 0)
    reached = {space.mutate(shallow, rng) for _ in range(400)}
    assert {g[2:4] for g in reached if g[1] == 2} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_crossover_takes_every_gene_from_a_parent(space: Tangle):
    rng = np.random.default_rng(0)
    first, second = (0, 2, 0, 0, 0, 1, 0), (1, 2, 1, 1, 2, 2, 1)
    children = [space.crossover(first, second, rng) for _ in range(200)]
    assert all(gene in pair for c in children for gene, *pair in zip(c, first, second, strict=True))
    assert len(set(children)) > 32


def test_one_hot_has_a_column_for_every_choice_and_none_for_inactive_genes(space: Tangle):
    encoded = space.one_hot([(1, 1, 1, 1, 2, 0, 1)])
    assert encoded.shape == (1, sum(SIZES.values()))
    positions = np.cumsum([0, *SIZES.values()])
    active = {0: 1, 1: 1, 2: 1, 4: 2, 5: 0}
    assert set(np.flatnonzero(encoded[0])) == {
        positions[g] + choice for g, choice in active.items()
    }


def test_the_graph_has_a_node_for_every_place(space: Tangle):
    (graph,) = space.graphs((0, 1, 1, 0, 0, 2, 1)).values()
    assert graph == Graph(
        operations=(
            "input",
            "Conv outputs=4",
            "ActConv outputs=6 kernel=3",
            "",
            "ActConv outputs=32",
            "Concat",
            "Head classes=5",
        ),
        edges=((0, 1), (1, 2), (0, 4), (4, 5), (2, 5), (5, 6)),
    )
    assert set(graph.operations) <= set(space.operations)
    encoded = space.encode_graphs([(0, 1, 1, 0, 0, 2, 1), (0, 0, 0, 0, 0, 2, 1)])
    assert encoded.operations.shape == (2, 7)
    assert set(zip(*np.nonzero(encoded.adjacency[0]), strict=True)) == set(graph.edges)
    assert [space.operations[i] for i in encoded.operations[0]] == list(graph.operations)


GENES = (Gene("a", (1, 2)), Gene("b", (3, 4)))


def test_reading_what_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"gene 'c': expected one of a, b"):
        BlockTable(Block("x", lambda chosen: chosen["c"]), {"input": 0}, GENES)
    with pytest.raises(KeyError, match=r"block x: reads 'y', expected one of input"):
        BlockTable(Block("x", lambda _: "y"), {"input": 0}, GENES)


@pytest.mark.parametrize("name", ["stem", "input", "two words", "forward", "class", "a.b"])
def test_a_block_needs_a_name_of_its_own(name: str):
    @dataclass(frozen=True, kw_only=True)
    class Named(Tangle):
        def blocks(self) -> Iterator[Block]:
            yield Block("stem", lambda _: ModuleSpec(Conv, {"outputs": 4}))
            yield Block(name, lambda _: ModuleSpec(Head, {"classes": self.num_classes}))

    with pytest.raises(ValueError, match=f"block {name!r}"):
        Named(input_shape=(3, 8, 8), num_classes=5).sample(np.random.default_rng(0))
