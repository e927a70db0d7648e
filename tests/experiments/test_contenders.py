from __future__ import annotations

import contenders
import numpy as np
import pytest
from _shared.table_task import TableTask
from campaign import MOST_REPEATS, search
from contenders import Contender, without_costs
from peers import Optimiser

from nas.core.space import Genotype

TASK = TableTask("cifar10", ("pixel2",))
BRIEF = 23
"""Some evaluations more than the 20 that most draw at random."""


class Recited(Optimiser):
    """Proposes what it was given, over and over."""

    def __init__(self, genotypes: list[Genotype]) -> None:
        self.genotypes = genotypes
        self.told: list[tuple[Genotype, tuple[float, ...]]] = []

    def ask(self) -> Genotype:
        return self.genotypes[len(self.told) % len(self.genotypes)]

    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        self.told.append((genotype, values))


def test_what_was_seen_costs_nothing_and_is_told_again() -> None:
    a, b, c = (0, 0, 0, 0, 0, 1), (0, 0, 0, 0, 0, 2), (3, 3, 3, 3, 3, 3)
    recited = Recited([a, a, b, a, c, c])
    contender = Contender("recited", "recited", {}, lambda task, seed: recited)
    made = search(contender, TASK, 0, 3)
    assert made.rows == tuple(TASK.benchmark.table.rows([a, b, c]).tolist())
    assert made.asked == len(recited.told) == 5
    assert recited.told[0] == recited.told[1]
    error, log_latency = recited.told[0][1]
    assert [error, log_latency] == TASK.points(made.rows[:1])[0].tolist()


def test_a_run_that_proposes_nothing_new_ends() -> None:
    recited = Recited([(0,) * 6, (1,) * 6])
    made = search(Contender("recited", "recited", {}, lambda task, seed: recited), TASK, 0, 9)
    assert len(made.rows) == 2
    assert made.asked == 2 + MOST_REPEATS


@pytest.mark.parametrize("name", contenders.names())
def test_every_contender_runs_and_repeats_itself(name: str) -> None:
    contender = contenders.get(name)
    if contender.missing:
        pytest.skip(f"not installed: {', '.join(contender.missing)}")
    first, again = (search(contender, TASK, 1, BRIEF) for _ in range(2))
    assert len(set(first.rows)) == BRIEF
    assert first.asked >= BRIEF
    assert first.rows == again.rows
    assert first.rows[:5] != search(contender, TASK, 2, 5).rows
    assert first.seconds > 0


def test_three_objectives() -> None:
    task = TableTask("cifar100", ("pixel2", "gold_6240"))
    assert len(search(contenders.get("nsga2"), task, 0, BRIEF).rows) == BRIEF


def test_a_cost_to_be_learned_is_not_told_beforehand() -> None:
    problem = TASK.problem
    genotype = problem.space.sample(np.random.default_rng(0))
    assert list(problem.known([genotype])[0]) == ["latency_ms_pixel2"]
    hidden = without_costs(problem)
    assert list(hidden.objectives) == list(problem.objectives)
    assert hidden.known([genotype]) == [{}]
