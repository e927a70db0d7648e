from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from additive import AdditiveSpace, evaluated, problem, searched

from nas.core.errors import ConfigError
from nas.core.space import Gene
from nas.core.trial import Trial
from nas.results.hypervolume import hypervolume, non_dominated
from nas.search import algorithms

REFERENCE = (1.0, 3.0)
"""Loss and cost of the worst choices."""


def front_volume(trials: list[Trial]) -> float:
    points = [[t.values["loss"], t.values["cost"]] for t in trials if t.complete]
    return hypervolume(points, REFERENCE)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_optimum_is_found(seed: int):
    """One of 16.8 million architectures has no loss; random search has 1 chance in 28,000."""
    at = problem(objectives="loss")
    trials = searched(algorithms.get("nsga2").start(at, seed), at, 600)
    best = min((t for t in trials if t.complete), key=lambda t: t.values["loss"])
    assert best.genotype == (3,) * 12
    assert best.values["loss"] == 0


def test_its_fronts_are_better_than_random_search_at_equal_budget():
    at = problem()
    for seed in range(3):
        found, drawn = (
            front_volume(searched(algorithms.get(name).start(at, seed), at, 600))
            for name in ("nsga2", "random_search")
        )
        assert found > 1.02 * drawn


def test_it_comes_close_to_the_true_front():
    # The front trades genes one choice at a time, best loss for its cost first.
    worth = np.random.default_rng(0).permutation(np.linspace(0.2, 1.8, 12))
    gains = sorted((w * (a**2 - b**2) / 9 / 12 for w in worth for a, b in ((3, 2), (2, 1), (1, 0))))
    losses = 1 - np.concatenate([[0], np.cumsum(gains[::-1])])
    front = np.column_stack([losses, np.arange(37) / 12])
    assert non_dominated(front).all()
    assert losses[-1] == pytest.approx(0)
    best = hypervolume(front, REFERENCE)
    at = problem()
    found = front_volume(searched(algorithms.get("nsga2").start(at, 0), at, 600))
    assert 0.9 * best < found <= best * (1 + 1e-9)


def test_a_limit_known_after_training_steers_the_search():
    at = problem(constraints=["loss <= 0.1"], objectives="cost")
    trials = searched(algorithms.get("nsga2").start(at, 0), at, 400)
    feasible = [t for t in trials if t.complete and at.violations(t)[0] <= 0]
    assert len(feasible) > 40
    assert min(t.values["cost"] for t in feasible) < 2.17
    drawn = searched(algorithms.get("random_search").start(at, 0), at, 400)
    assert sum(t.complete and at.violations(t)[0] <= 0 for t in drawn) < 15


def test_the_first_proposals_are_random_whatever_is_told():
    at = problem()
    run = algorithms.get("nsga2", population=10).start(at, 1)
    untold = algorithms.get("nsga2", population=10).start(at, 1)
    assert [t.genotype for t in searched(run, at, 10)] == untold.ask(10)


@dataclass(frozen=True, kw_only=True)
class UnevenSpace(AdditiveSpace):
    """Genes of one to five choices."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(f"gene{i}", tuple(range(1 + i % 5))) for i in range(self.count))


def test_every_choice_of_every_gene_is_reached():
    at = problem(UnevenSpace(count=15))
    trials = searched(algorithms.get("nsga2", mutated_genes=4.0).start(at, 0), at, 400)
    for i, choices in enumerate(at.space.cardinalities):
        seen = Counter(t.genotype[i] for t in trials)
        assert set(seen) == set(range(choices))


def test_a_thousand_proposals_take_seconds():
    """On two cores 0.3 s; the bound leaves room for a busy machine."""
    at = problem(AdditiveSpace(count=40))
    run = algorithms.get("nsga2").start(at, 0)
    started = time.process_time()
    for number in range(1000):
        (genotype,) = run.ask(1)
        run.tell([evaluated(at, number, genotype)])
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("objective", "constraints"), [("loss", []), ("cost", ["loss <= 0.2"]), ("both", ["cost >= 2"])]
)
def test_only_the_best_have_offspring(objective: str, constraints: list[str]):
    """Four good and four bad trials compete for four places: low loss, or kept limits, win."""
    at = problem(constraints=constraints, objectives=objective)
    settings = {"population": 4, "crossover_probability": 0.0, "mutated_genes": 0.5}
    run = algorithms.get("nsga2", **settings).start(at, 0)
    run.ask(4)
    good, bad = (
        [tuple(2 if i == j else choice for i in range(12)) for j in range(4)] for choice in (3, 0)
    )
    run.tell([evaluated(at, number, genotype) for number, genotype in enumerate(bad + good)])
    for genotype in run.ask(30):
        assert sum(choice == 3 for choice in genotype) >= 6


def test_offspring_of_two_parents_mix_their_genes():
    at = problem()
    run = algorithms.get("nsga2", population=2, crossover_probability=1.0).start(at, 0)
    run.ask(2)
    run.tell([evaluated(at, 0, (3,) * 12), evaluated(at, 1, (0,) * 12)])
    shares = [sum(choice == 3 for choice in genotype) / 12 for genotype in run.ask(40)]
    assert 0.3 < np.mean(shares) < 0.7
    assert (
        np.mean([0.1 < share < 0.9 for share in shares]) > 0.4
    )  # half of them have one parent twice


@pytest.mark.parametrize(
    ("name", "value"),
    [("population", 1), ("crossover_probability", 1.1), ("mutated_genes", 0.0)],
)
def test_a_wrong_setting_is_named(name: str, value: float):
    with pytest.raises(ConfigError, match=f"search.algorithm.{name}: got {value}"):
        algorithms.get("nsga2", **{name: value})
