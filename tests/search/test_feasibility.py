from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from additive import AdditiveSpace, Cost, problem

from nas.core.errors import ConfigError
from nas.core.objective import Constraint, Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives.builtin import LatencyMs
from nas.search.feasibility import feasibility_report
from nas.search.problem import SearchProblem
from nas.study.preview import feasibility_lines


def lines(at: SearchProblem) -> str:
    return "\n".join(feasibility_lines(at, feasibility_report(at, np.random.default_rng(0))))


@dataclass(frozen=True, kw_only=True)
class Nowhere(Objective):
    """Claims to be known before training, and never is."""

    unit: ClassVar[str] = "1"
    column: ClassVar[str] = "nowhere"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        return np.full(len(genotypes), math.nan)


def test_the_feasible_share_is_that_of_the_space():
    # By hand: 10 of 16 pairs of two genes with choices 0 .. 3 sum to 3 at the most.
    at = problem(AdditiveSpace(count=2), constraints=["cost <= 1.5"])
    found = feasibility_report(at, np.random.default_rng(0))
    assert found.samples == 1000
    assert len(found.feasible) / 1000 == pytest.approx(10 / 16, abs=0.05)
    assert found.keeping == {at.constraints[0]: len(found.feasible)}
    assert at.feasible_rows(found.feasible).all()


def test_walks_reach_what_random_architectures_do_not():
    at = problem(AdditiveSpace(count=24), constraints=["cost <= 1"])
    found = feasibility_report(at, np.random.default_rng(0))
    # One of 1000 random ones hardly ever lies beyond 1.5 +- 0.8; the ends are 0 and 3.
    assert 0 <= found.reach["cost"].low < 0.4
    assert 2.6 < found.reach["cost"].high <= 3
    assert found.within["cost"].low == found.reach["cost"].low
    assert 0.9 < found.within["cost"].high <= 1
    assert "loss" not in found.reach


def test_what_limits_leave_is_said_for_each_of_them():
    shown = lines(problem(constraints=["cost <= 0.2", "loss <= 1"]))
    assert "0 % of 1000 random architectures keep those limits that can be judged now" in shown
    assert "cost <= 0.2: kept by 0 %" in shown
    assert "loss <= 1: cannot be judged before training" in shown
    assert "loss: known after training only" in shown
    assert "cost: reaches from " in shown


def test_limits_that_exclude_each_other_are_told():
    at = problem(AdditiveSpace(count=2), constraints=["cost <= 1", "cost >= 2"])
    shown = lines(at)
    assert "each limit by itself can be kept" in shown


def test_without_limits_only_ranges_are_told():
    shown = lines(problem())
    assert "limit" not in shown
    assert "cost: reaches from" in shown


def test_a_predictor_that_is_missing_leaves_its_objective_open():
    at = problem(constraints=["cost <= 1"])
    limit = Constraint.parse("latency_ms <= 2")
    at = replace(
        at,
        objectives={**at.objectives, "latency_ms": LatencyMs()},
        constraints=(*at.constraints, limit),
    )
    shown = lines(at)
    assert "latency_ms <= 2: cannot be judged before the device is calibrated" in shown
    assert "latency_ms: known once the device is calibrated" in shown


def test_an_objective_that_is_never_a_number_is_refused_before_anything_is_trained():
    at = replace(problem(), objectives={"cost": Cost(), "nowhere": Nowhere()})
    with pytest.raises(ConfigError, match=r"search\.objectives: got 'nowhere'.*NaN for all"):
        feasibility_report(at, np.random.default_rng(0))


def test_a_space_of_three_architectures():
    at = problem(AdditiveSpace(count=1, choices=3), constraints=["cost <= 1"])
    found = feasibility_report(at, np.random.default_rng(0))
    assert set(found.feasible) == {(0,), (1,)}
    assert (found.reach["cost"].low, found.reach["cost"].high) == (0, 2)
