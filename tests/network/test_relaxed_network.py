from __future__ import annotations

import numpy as np
import pytest
import torch
from relaxed_spaces import TinySpace
from torch.nn.functional import one_hot

import search_spaces
from nas.core.errors import ConfigError
from nas.network import relaxed
from nas.network.relaxed import RelaxedNetwork, mixable
from nas.network.space import SearchSpace

SPACES = {
    "tiny": TinySpace(),
    "nasbench201": search_spaces.get(
        "nasbench201", input_shape=(1, 8, 8), num_classes=10, channels=4, cells_per_stage=1
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_weights_of_one_choice_run_the_network_of_it(name: str):
    space = SPACES[name]
    network = RelaxedNetwork(space, mixable(space))
    images = torch.randn(4, *space.input_shape)
    for genotype in space.samples(8, np.random.default_rng(1)).tolist():
        network.shared.choose(genotype)
        torch.testing.assert_close(
            network(images, genotype, hard(space, genotype)), network.shared(images)
        )


def test_a_block_is_the_sum_of_its_variants_by_their_probabilities():
    """The second operation is followed by linear layers only."""
    space = TinySpace()
    network = RelaxedNetwork(space, mixable(space))
    images = torch.randn(4, *space.input_shape)
    probabilities = torch.tensor([0.2, 0.3, 0.5])
    for width, first in ((0, 1), (2, 0)):
        weights = [*hard(space, (width, first, 0))[:2], probabilities]
        expected = torch.zeros(4, 10)
        for choice, p in enumerate(probabilities):
            network.shared.choose((width, first, choice))
            expected = expected + p * network.shared(images)
        torch.testing.assert_close(network(images, (width, first, 0), weights), expected)


def test_edges_of_a_cell_are_run_once_each():
    """Three edges with four operations besides none: 125 variants, 12 operations, and zeros."""
    space = SPACES["nasbench201"]
    network = RelaxedNetwork(space, mixable(space))
    weights = [torch.full((5,), 0.2) for _ in space.genes]
    network(torch.randn(2, 1, 8, 8), (0,) * 6, weights)
    assert [len(part.terms) for part in network._sums.values()][:3] == [5, 11, 16]


def test_what_changes_shapes_and_what_is_ordinal_is_not_mixed():
    assert mixable(TinySpace()) == (False, True, True)
    assert mixable(SPACES["nasbench201"]) == (True,) * 6


def test_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relaxed, "MOST_TERMS", 10)
    space = SPACES["nasbench201"]
    network = RelaxedNetwork(space, mixable(space))
    with pytest.raises(ConfigError, match="a sum of 11 parts"):
        network(torch.randn(2, 1, 8, 8), (0,) * 6, [torch.full((5,), 0.2) for _ in space.genes])


def hard(space: SearchSpace, genotype: tuple[int, ...]) -> list[torch.Tensor]:
    pairs = zip(genotype, space.cardinalities, strict=True)
    return [one_hot(torch.tensor(choice), size).float() for choice, size in pairs]
