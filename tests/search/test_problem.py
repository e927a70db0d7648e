from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from additive import AdditiveSpace, evaluated, problem

from nas.core.errors import ConfigError
from nas.core.objective import Facts
from nas.core.space import Genotype
from nas.search.problem import SearchProblem


def test_known_are_the_objectives_that_need_no_training():
    assert problem().known([(0,) * 12, (3,) * 12]) == [{"cost": 0.0}, {"cost": 3.0}]
    assert problem(constraints=["loss <= 1"]).known([(0,) * 12]) == [{"cost": 0.0}]


def test_feasible_is_what_breaks_no_known_limit():
    at = problem(constraints=["cost <= 1", "loss <= 0"])
    assert at.feasible_rows([(1,) * 12, (2,) * 12]).tolist() == [True, False]


def test_violations_are_those_of_all_limits_in_their_order():
    at = problem(constraints=["cost <= 1", "loss <= 0.25"])
    over, under = evaluated(at, 0, (2,) * 12), evaluated(at, 1, (3,) * 12)
    assert at.violations(over) == pytest.approx([1, 1 / 9 - 0.25])
    assert at.violations(under) == pytest.approx([2, -0.25])


def test_nothing_to_search_for():
    with pytest.raises(ConfigError, match=r"search\.objectives: got"):
        SearchProblem(
            space=AdditiveSpace(),
            objectives={},
            constraints=(),
            limited={},
            facts=Facts(lambda genotypes: None, None),
        )


def test_samples_are_uniform_where_limits_are_wide():
    rng, free = np.random.default_rng(0), np.random.default_rng(0)
    at = problem(constraints=["cost <= 3"])
    for _ in range(50):
        assert at.samples_feasible(1, rng) == [at.space.sample(free)]


def test_samples_avoid_what_was_seen():
    at = problem(AdditiveSpace(count=2, choices=2))
    seen = {(0, 0), (0, 1), (1, 1)}
    assert at.samples_feasible(1, np.random.default_rng(0), seen) == [(1, 0)]
    assert at.samples_feasible(1, np.random.default_rng(0), {*seen, (1, 0)}) == []


def test_two_limits_of_different_size_are_met_together():
    at = problem(AdditiveSpace(count=24), constraints=["cost <= 0.3", "cost >= 0.25"])
    rng = np.random.default_rng(0)
    for _ in range(5):
        [genotype] = at.samples_feasible(1, rng)
        assert 0.25 <= sum(genotype) / 24 <= 0.3


def test_costs_that_are_counted_once_are_those_of_the_genotypes_asked_for():
    counted: list[list[Genotype]] = []

    def costs(genotypes: Sequence[Genotype]) -> pd.DataFrame:
        counted.append(list(genotypes))
        return pd.DataFrame({"macs_m": [float(sum(genotype)) for genotype in genotypes]})

    genotypes = [(1, 2), (3, 4)]
    facts = Facts(costs, None).of(genotypes)
    for _ in range(2):
        assert facts.costs(genotypes)["macs_m"].tolist() == [3, 7]
    assert counted == [genotypes]
    assert facts.costs([(5, 6)])["macs_m"].tolist() == [11]
