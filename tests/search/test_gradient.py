"""The sweep of targets; what is found for one is told by enumeration here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from additive import AdditiveSpace, Cost, evaluated, loss, problem, searched

from nas.core.errors import ConfigError
from nas.core.objective import Facts
from nas.core.prediction import FloatArray
from nas.core.relaxation import Goal
from nas.core.space import Genotype
from nas.search import algorithms
from nas.search.problem import SearchProblem

EVERY = list(itertools.product(range(4), repeat=5))


@dataclass(frozen=True, kw_only=True)
class PositiveCost(Cost):
    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        return 0.5 + super().before_training(genotypes, facts)


LOSSES = np.array([loss(genotype) for genotype in EVERY])
COSTS = 0.5 + np.array(EVERY).mean(1)


def best_for(goal: Goal) -> Genotype:
    """Return the least loss and deviation; seeds differ in how much they weigh."""
    weight = 1 + goal.seed % 7
    return EVERY[int((LOSSES + weight * np.abs(np.log(COSTS / goal.target))).argmin())]


def relaxable(*, constraints: Sequence[str] = (), asked: list[Goal] | None = None) -> SearchProblem:
    at = problem(AdditiveSpace(count=5), constraints=constraints)

    def relaxed(goals: Sequence[Goal]) -> list[Genotype | None]:
        if asked is not None:
            asked.extend(goals)
        return [best_for(goal) for goal in goals]

    known = {**at.objectives, "cost": PositiveCost()}
    limited = dict.fromkeys(at.limited, PositiveCost())
    return replace(at, objectives=known, limited=limited, relaxed=relaxed)


def test_targets_go_from_the_smallest_to_the_largest_cost_whatever_is_done_first():
    asked: list[Goal] = []
    run = algorithms.get("gradient", targets=5).start(relaxable(asked=asked), 0)
    assert len(run.ask(2)) == 2
    targets = [goal.target for goal in asked]
    assert sorted(targets) == pytest.approx(np.geomspace(0.5, 3.5, 5))
    assert sorted(targets[:2]) == pytest.approx([0.5, 3.5])
    assert targets[2] == pytest.approx(np.sqrt(0.5 * 3.5))
    assert len({goal.seed for goal in asked}) == 1


def test_what_is_proposed_is_new_and_costs_what_is_aimed_at():
    at = relaxable()
    trials = searched(algorithms.get("gradient", targets=6, seeds=5).start(at, 0), at, 100)
    genotypes = [trial.genotype for trial in trials]
    assert 6 <= len(genotypes) == len(set(genotypes)) < 100
    costs = sorted(at.known([genotype])[0]["cost"] for genotype in genotypes[:6])
    assert costs == pytest.approx(np.geomspace(0.5, 3.5, 6), rel=0.15)


def test_a_replayed_search_proposes_the_same():
    at = relaxable()
    run, again = (algorithms.get("gradient", targets=4, seeds=4).start(at, 3) for _ in range(2))
    trials = searched(run, at, 6)
    assert searched(again, at, 6) == trials
    assert again.ask(2) == run.ask(2)


def test_a_limit_on_the_cost_ends_the_sweep_there():
    asked: list[Goal] = []
    at = relaxable(constraints=["cost <= 2"], asked=asked)
    trials = searched(algorithms.get("gradient", targets=4).start(at, 0), at, 20)
    assert max(goal.target for goal in asked) == pytest.approx(2)
    assert at.feasible_rows([trial.genotype for trial in trials]).all()


def test_failed_trainings_are_left_out_and_those_that_are_missing_end_the_search():
    at = relaxable()
    partly = replace(at, relaxed=lambda goals: [None, *(best_for(goal) for goal in goals[1:3])])
    run = algorithms.get("gradient", targets=4, seeds=3).start(partly, 0)
    first = run.ask(10)
    assert 1 <= len(first) <= 2
    assert run.ask(1) == []


def test_what_it_was_told_of_it_does_not_propose():
    at = relaxable()
    known = algorithms.get("gradient", targets=4).start(at, 0).ask(1)
    run = algorithms.get("gradient", targets=4).start(at, 0)
    run.tell([evaluated(at, 0, known[0])])
    assert known[0] not in run.ask(20)


@pytest.mark.parametrize("value", [0.4, 3.6])
def test_a_target_outside_the_range_is_refused(value: float):
    settings = algorithms.get("gradient", target_values=(1.0, value))
    with pytest.raises(ConfigError, match=r"target_values: got .*, expected 0\.5 to 3\.5 1"):
        settings.start(relaxable(), 0)


def test_targets_may_be_given():
    asked: list[Goal] = []
    algorithms.get("gradient", target_values=(1.0, 3.0)).start(relaxable(asked=asked), 0).ask(1)
    assert [goal.target for goal in asked] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("name", "value"), [("targets", 0), ("seeds", 0), ("target_values", (-1.0,))]
)
def test_wrong_settings_are_refused(name: str, value: object):
    with pytest.raises(ConfigError, match=f"search.algorithm.{name}: got"):
        algorithms.get("gradient", **{name: value})


def test_there_must_be_a_cost_and_something_to_train():
    at = relaxable()
    with pytest.raises(ConfigError, match=r"search\.algorithm\.cost: got"):
        algorithms.get("gradient", cost="loss").start(at, 0)
    without = replace(at, objectives={"loss": at.objectives["loss"]})
    with pytest.raises(ConfigError, match="known are: none"):
        algorithms.get("gradient").start(without, 0)
    with pytest.raises(ConfigError, match="no images"):
        algorithms.get("gradient").start(replace(at, relaxed=None), 0)
