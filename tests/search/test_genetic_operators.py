from __future__ import annotations

import numpy as np
import pytest
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.operators.crossover.ux import UX

import search_spaces
from nas.core.space import Gene
from nas.search.algorithms.pymoo_algorithms import reference_directions
from nas.search.operators import GeneMutation, offspring, tournament

GENES = (
    Gene("depth", (1, 2, 3, 4, 5)),
    Gene("operation", ("conv", "pool", "skip", "none", "sep"), ordinal=False),
    Gene("fixed", (1,)),
)


def mutated(choice: int) -> np.ndarray:
    pop = Population.new("X", np.tile([choice, choice, 0], (20_000, 1)))
    rng = np.random.default_rng(0)
    return GeneMutation(GENES, mutated_genes=3).do(None, pop, random_state=rng).get("X")


def test_ordinal_genes_move_nearby_and_categorical_ones_anywhere():
    moved = mutated(1)
    depth, operation, fixed = (np.bincount(column, minlength=5) / 20_000 for column in moved.T)
    assert depth == pytest.approx([8 / 22, 0, 8 / 22, 4 / 22, 2 / 22], abs=0.02)
    assert operation == pytest.approx([0.25, 0, 0.25, 0.25, 0.25], abs=0.02)
    assert fixed[0] == 1


def test_at_the_end_of_its_choices_an_ordinal_gene_moves_inwards():
    depth = np.bincount(mutated(4)[:, 0], minlength=5) / 20_000
    assert depth == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15, 0], abs=0.02)


def test_as_many_genes_mutate_as_are_asked_for():
    genes = tuple(Gene(f"gene{i}", (1, 2, 3)) for i in range(40))
    pop = Population.new("X", np.ones((2_000, 40), int))
    rng = np.random.default_rng(0)
    moved = GeneMutation(genes, mutated_genes=1.5).do(None, pop, random_state=rng).get("X")
    assert (moved != 1).sum(axis=1).mean() == pytest.approx(1.5, abs=0.1)


def test_the_first_attribute_that_differs_decides_a_tournament():
    attributes = [(0.0, 1, 0.3), (0.0, 0, 0.2), (0.0, 0, 0.9), (0.5, None, None)]
    pop = Population.create(
        *(Individual(CV=np.array([cv]), rank=r, crowding=d) for cv, r, d in attributes)
    )
    select = tournament("CV", "rank", "-crowding")
    pairs = np.array([(0, 1), (1, 2), (3, 0), (2, 3)])
    winners = select.func_comp(pop, pairs, random_state=np.random.default_rng(0))
    assert winners[:, 0].tolist() == [1, 2, 0, 2]


def test_a_coin_decides_between_equals():
    pop = Population.create(*(Individual(CV=np.zeros(1)) for _ in range(2)))
    pairs = np.tile([0, 1], (1000, 1))
    winners = tournament("CV").func_comp(pop, pairs, random_state=np.random.default_rng(0))
    assert 400 < winners.sum() < 600


def test_offspring_are_canonical_distinct_and_near_their_parents():
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    rng = np.random.default_rng(0)
    parents = space.samples(1, rng)
    mutation = GeneMutation(space.genes, 2.0)
    children = offspring(space, parents, 200, rng, mutation, UX(prob=0.5))
    assert len(np.unique(children, axis=0)) == len(children)
    np.testing.assert_array_equal(space.canonicalise(children), children)
    changed = (children != parents).sum(axis=1)
    assert np.median(changed) <= 4


@pytest.mark.parametrize(
    ("objectives", "most", "expected"), [(1, 16, 1), (2, 16, 16), (3, 16, 15), (3, 91, 91)]
)
def test_reference_directions_fill_the_population(objectives: int, most: int, expected: int):
    directions = reference_directions(objectives, most)
    assert directions.shape == (expected, objectives)
    assert directions.sum(axis=1) == pytest.approx(1)
