"""Algorithms that change one architecture at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from additive import AdditiveSpace, evaluated, problem, searched

from nas.core.errors import ConfigError
from nas.core.space import Gene, Genotype
from nas.search import algorithms
from nas.search.algorithms.baselines import neighbours


@dataclass(frozen=True, kw_only=True)
class MixedSpace(AdditiveSpace):
    """Every second gene is categorical."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(
            Gene(f"gene{i}", tuple(range(self.choices)), ordinal=i % 2 == 0)
            for i in range(self.count)
        )


def changes(first: Genotype, second: Genotype) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["regularised_evolution", "pareto_local_search"])
def test_a_planted_optimum_is_approached(name: str):
    """Random search is left with a loss of 0.1 and more."""
    at = problem(objectives="loss")
    trials = searched(algorithms.get(name).start(at, 0), at, 600)
    best = min((t for t in trials if t.complete), key=lambda t: t.values["loss"])
    assert best.values["loss"] < 0.02


def test_a_child_differs_from_a_member_of_the_population_in_one_gene():
    at = problem()
    run = algorithms.get("regularised_evolution", population=4, tournament=2).start(at, 0)
    told = [evaluated(at, number, genotype) for number, genotype in enumerate(run.ask(8))]
    run.tell(told)
    for child in run.ask(20):
        assert min(changes(child, trial.genotype) for trial in told[-4:]) == 1


def test_the_oldest_die_even_the_best():
    at = problem(objectives="loss")
    run = algorithms.get("regularised_evolution", population=3, tournament=3).start(at, 0)
    best = (3,) * 12
    others = [tuple(int(i == j) for i in range(12)) for j in range(3)]
    run.tell([evaluated(at, number, genotype) for number, genotype in enumerate([best, *others])])
    assert all(changes(child, best) > 5 for child in run.ask(20))


def test_the_best_of_the_whole_population_is_the_parent_of_all():
    at = problem(objectives="loss")
    run = algorithms.get("regularised_evolution", population=4, tournament=4).start(at, 0)
    best = (3,) * 12
    others = [tuple(int(i == j) for i in range(12)) for j in range(3)]
    run.tell([evaluated(at, number, genotype) for number, genotype in enumerate([best, *others])])
    assert all(changes(child, best) == 1 for child in run.ask(20))


def test_neighbours_are_next_choices_of_ordinal_genes_and_all_of_categorical_ones():
    near = neighbours(MixedSpace(count=2, choices=4), (1, 1)).tolist()
    assert sorted(map(tuple, near)) == [(0, 1), (1, 0), (1, 2), (1, 3), (2, 1)]
    assert len(neighbours(MixedSpace(count=2, choices=4), (0, 0))) == 1 + 3


def test_local_search_explores_one_member_of_the_archive_after_another():
    at = problem(AdditiveSpace(count=4))
    run = algorithms.get("pareto_local_search", initial=2).start(at, 0)
    members, dominated = [(3, 3, 3, 3), (0, 0, 0, 0)], (1, 1, 1, 0)
    space = at.space
    near = {m: {tuple(row) for row in neighbours(space, m).tolist()} for m in members}
    run.tell([evaluated(at, number, genotype) for number, genotype in enumerate(members)])
    first, second = set(run.ask(4)), set(run.ask(4))
    assert {frozenset(first), frozenset(second)} == {frozenset(n) for n in near.values()}
    # Everything is explored: a random architecture follows.
    assert run.ask(1)[0] not in {*members, *first, *second, dominated}


@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        ("regularised_evolution", "population", 0),
        ("regularised_evolution", "tournament", 21),
        ("pareto_local_search", "initial", 0),
        ("tpe", "startup", 0),
        ("tpe", "candidates", 0),
        ("sms_emoa", "population", 1),
    ],
)
def test_a_wrong_setting_is_named(algorithm: str, name: str, value: float):
    with pytest.raises(ConfigError, match=f"search.algorithm.{name}: got {value}"):
        algorithms.get(algorithm, **{name: value})
