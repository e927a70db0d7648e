from __future__ import annotations

import pytest
from additive import AdditiveSpace, evaluated, problem, searched
from enumerating import NAMES

from nas.core.space import Genotype
from nas.search import algorithms
from nas.search.algorithms import AlgorithmSettings
from nas.search.proposer import WarmStart

FIRST: list[Genotype] = [(3,) * 12, (1,) * 12, (0, 3) * 6]


@pytest.fixture(params=NAMES)
def settings(request: pytest.FixtureRequest) -> AlgorithmSettings:
    return algorithms.get(request.param)


def test_known_architectures_come_first_and_once(settings: AlgorithmSettings):
    at = problem()
    genotypes = [t.genotype for t in searched(WarmStart(settings.start(at, 0), at, FIRST), at, 40)]
    assert genotypes[:3] == FIRST
    assert len(set(genotypes)) == 40


def test_the_algorithm_learns_from_them(settings: AlgorithmSettings):
    at = problem()
    warm, cold = WarmStart(settings.start(at, 0), at, FIRST), settings.start(at, 0)
    trials = [evaluated(at, number, genotype) for number, genotype in enumerate(warm.ask(3))]
    warm.tell(trials)
    cold.tell(trials)
    assert warm.ask(30) == cold.ask(30)


def test_asking_beyond_them_before_they_are_told(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=3, choices=2))
    run = WarmStart(settings.start(at, 0), at, [(0, 0, 0), (1, 1, 1)])
    proposed = run.ask(20)
    assert proposed[:2] == [(0, 0, 0), (1, 1, 1)]
    assert len(proposed) == len(set(proposed)) == 8


def test_replaying_leads_to_the_same_proposals(settings: AlgorithmSettings):
    at = problem()
    first, again = (WarmStart(settings.start(at, 3), at, FIRST) for _ in range(2))
    assert searched(first, at, 25) == searched(again, at, 25)
    assert first.ask(3) == again.ask(3)


def test_what_breaks_a_limit_or_was_told_or_is_the_same_network_is_left_out():
    at = problem(AdditiveSpace(count=3, switched=True), constraints=["cost <= 2"])
    known = [(0, 2, 3), (0, 0, 0), (3, 3, 3), (1, 0, 0), (1, 0, 1)]
    run = WarmStart(algorithms.get("random_search").start(at, 0), at, known)
    run.tell([evaluated(at, 0, (1, 0, 0))])
    assert run.ask(2) == [(0, 0, 0), (1, 0, 1)]
    assert run.ask(1)[0] not in known
