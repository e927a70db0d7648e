"""Tables of what stands in each place, against the networks of all genotypes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.core.space import Gene, Genotype
from nas.network import traces
from nas.network.blocks import INPUT, Block, Choices, ModuleSpec
from nas.network.costs import trace_spec
from nas.network.space import SearchSpace
from nas.network.traces import GeneTable


class Conv(nn.Module):
    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


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


SIZES = {"width": 2, "depth": 2, "source": 3, "joined": 2}
ALL: list[Genotype] = list(itertools.product(*(range(n) for n in SIZES.values())))


@dataclass(frozen=True, kw_only=True)
class Branches(SearchSpace):
    """A stem that no gene concerns, a block that may be missing, and a join of one or two."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(name, tuple(range(n))) for name, n in SIZES.items())

    def blocks(self) -> Iterator[Block]:
        yield Block("stem", lambda _: ModuleSpec(Conv, {"outputs": 4}))
        yield Block("second", self._second)
        yield Block("branch", lambda c: (INPUT, "stem", "second")[c["source"]])
        yield Block("side", lambda _: ModuleSpec(Head, {"classes": 2}, ("stem",)), auxiliary=True)
        yield Block("join", self._join)
        yield Block("head", lambda _: ModuleSpec(Head, {"classes": self.num_classes}))

    def _second(self, chosen: Choices) -> ModuleSpec | None:
        if not chosen["depth"]:
            return None
        return ModuleSpec(Conv, {"outputs": 4 + 4 * chosen["width"]})

    def _join(self, chosen: Choices) -> ModuleSpec:
        read = ("branch", "second") if chosen["joined"] else ("branch",)
        return ModuleSpec(Concat, inputs=read)


@pytest.fixture(scope="module")
def space() -> Branches:
    return Branches(input_shape=(3, 4, 4), num_classes=5)


def chosen(table: GeneTable, genotype: Genotype) -> int:
    return int(table.values[tuple(genotype[gene] for gene in table.genes)])


def test_every_genotype_has_its_modules_and_sources(space: Branches):
    places = space.traces()
    names = [place.name for place in places]
    assert names == ["stem", "second", "branch", "join", "head"]  # no auxiliary classifier
    for genotype in ALL:
        placed = {block.name: block for block in space.place(genotype)}
        for place in places:
            trace = place.traces[chosen(place.table, genotype)]
            sources = [chosen(table, genotype) for table in place.sources]
            block = placed.get(place.name)
            if block is None:
                assert trace is None
                assert set(sources) <= {-1}
                continue
            spec = ModuleSpec(block.module, block.arguments)
            assert trace == trace_spec(spec.key, block.input_shapes)
            read = [0 if name == INPUT else 1 + names.index(name) for name in block.inputs]
            assert sources == read + [-1] * (len(sources) - len(read))


def test_tables_depend_on_the_genes_that_matter_alone(space: Branches):
    stem, second, branch, join, head = space.traces()
    width, depth, source, joined = range(4)
    assert stem.table.genes == ()
    assert stem.traces[int(stem.table.values)] is not None
    assert [table.genes for table in stem.sources] == [()]
    assert second.table.genes == (width, depth)
    assert len(second.traces) == 3  # none, and one for each width
    assert branch.traces == (None,)
    assert join.table.genes == (width, depth, source, joined)
    assert [table.genes for table in join.sources] == [(depth, source), (depth, joined)]
    assert head.sources[0].genes == ()


def test_too_many_combinations_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(traces, "MOST_CELLS", 10)
    space = Branches(input_shape=(3, 4, 4), num_classes=6)  # another, whose plan is not known yet
    with pytest.raises(ValueError, match="block branch: depends on 12 combinations of genes"):
        space.traces()


@pytest.fixture
def table() -> GeneTable:
    return GeneTable((1, 4), np.array([[1, 2, 3], [4, 5, 6]], np.int32))


def test_over_more_genes_a_table_is_the_same_for_the_others(table: GeneTable):
    over = table.over((0, 1, 3, 4))
    assert over.shape == (1, 2, 1, 3)
    assert over[0, :, 0].tolist() == table.values.tolist()


def test_at_given_choices_the_other_genes_are_left(table: GeneTable):
    first = table.at((4,), (2,))
    assert (first.genes, first.values.tolist()) == ((1,), [3, 6])
    # Genes that the table does not have change nothing.
    second = table.at((0, 1, 2), (5, 1, 7))
    assert (second.genes, second.values.tolist()) == ((4,), [4, 5, 6])
    third = table.at((4, 1), (0, 1))
    assert (third.genes, third.values.shape, int(third.values)) == ((), (), 4)
    assert table.at((), ()).genes == table.genes


def test_genes_without_a_difference_are_left_out():
    values = np.array([[[1, 1], [2, 2], [3, 3]]] * 2, np.int32)
    reduced = GeneTable((2, 5, 7), values).reduced()
    assert (reduced.genes, reduced.values.tolist()) == ((5,), [1, 2, 3])
    assert reduced.reduced().genes == reduced.genes
    constant = GeneTable((2, 5), np.full((2, 3), 9, np.int32)).reduced()
    assert (constant.genes, constant.values.shape, int(constant.values)) == ((), (), 9)
