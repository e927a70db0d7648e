"""What every search algorithm must keep; a new one is tested because it is registered."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import deque
from dataclasses import replace
from itertools import product
from pathlib import Path

import additive
import pytest
from additive import AdditiveSpace, evaluated, pending_trials, problem, searched
from enumerating import NAMES
from optuna.trial import TrialState

from nas.core.errors import NoFeasibleArchitectureError
from nas.core.space import Genotype
from nas.search import algorithms
from nas.search.algorithms import AlgorithmSettings
from nas.search.algorithms.optuna_samplers import SamplerRun

COLLECTIONS = (dict, set, list, deque)


@pytest.fixture(params=NAMES)
def settings(request: pytest.FixtureRequest) -> AlgorithmSettings:
    return algorithms.get(request.param)


def test_proposals_are_canonical_in_range_and_new(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=6, switched=True))
    genotypes = [trial.genotype for trial in searched(settings.start(at, 0), at, 100)]
    assert len(genotypes) == len(set(genotypes)) == 100
    assert all(at.space.canonical(g) == g for g in genotypes)
    assert all(type(choice) is int for g in genotypes for choice in g)


def test_asking_for_several_at_once(settings: AlgorithmSettings):
    at = problem()
    run = settings.start(at, 0)
    first = run.ask(20)
    run.tell([evaluated(at, i, g) for i, g in enumerate(first)])
    second = run.ask(30)
    assert (len(first), len(second), len({*first, *second})) == (20, 30, 50)
    assert run.ask(0) == []


def test_equal_seeds_propose_the_same_and_others_do_not(settings: AlgorithmSettings):
    at = problem()
    first, again, other = (searched(settings.start(at, seed), at, 40) for seed in (5, 5, 6))
    assert first == again
    assert [t.genotype for t in first] != [t.genotype for t in other]


def test_another_process_proposes_the_same(settings: AlgorithmSettings):
    name = algorithms.registry.settings(settings)["name"]
    command = [sys.executable, str(Path(additive.__file__)), name]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    here = [t.genotype for t in searched(settings.start(problem(), 5), problem(), 40)]
    assert [tuple(genotype) for genotype in json.loads(ran.stdout)] == here


def test_replaying_stored_trials_leads_to_the_same_proposal(settings: AlgorithmSettings):
    at = problem()
    run = settings.start(at, 3)
    trials = searched(run, at, 30)
    replayed = settings.start(at, 3)
    assert searched(replayed, at, 30) == trials
    assert replayed.ask(3) == run.ask(3)


def test_how_trials_are_grouped_does_not_matter(settings: AlgorithmSettings):
    at = problem()
    single, whole = settings.start(at, 3), settings.start(at, 3)
    trials = [evaluated(at, i, g, failed=i == 5) for i, g in enumerate(single.ask(30))]
    assert whole.ask(30) == [trial.genotype for trial in trials]
    for trial in trials:
        single.tell([trial])
    whole.tell(trials)
    assert whole.ask(10) == single.ask(10)


def test_asking_further_before_being_told(settings: AlgorithmSettings):
    at = problem()
    run = settings.start(at, 0)
    untold = [genotype for n in (1, 3, 1, 25, 7) for genotype in run.ask(n)]
    run.tell([evaluated(at, number, genotype) for number, genotype in enumerate(untold[20:])])
    assert len({*untold, *run.ask(5)}) == 42


def test_replaying_groups_of_proposals_leads_to_the_same(settings: AlgorithmSettings):
    at = problem(constraints=["cost <= 2", "loss <= 0.5"])
    first, again = (settings.start(at, 3) for _ in range(2))
    for n in (12, 20, 1, 9):
        proposed = first.ask(n)
        assert again.ask(n) == proposed
        trials = [evaluated(at, k, g, failed=k % 5 == 2) for k, g in enumerate(proposed)]
        first.tell(trials)
        again.tell(trials)
    assert first.ask(6) == again.ask(6)


def test_what_it_was_told_of_it_does_not_propose(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=2, choices=3))
    known = [genotype for genotype in product(range(3), repeat=2) if sum(genotype) != 2]
    run = settings.start(at, 0)
    run.tell([evaluated(at, i, g, failed=i == 1) for i, g in enumerate(known)])
    assert sorted(run.ask(9)) == [(0, 2), (1, 1), (2, 0)]


@pytest.mark.parametrize("objectives", ["loss", "cost"])
def test_one_objective_is_enough(settings: AlgorithmSettings, objectives: str):
    at = problem(objectives=objectives)
    assert len(searched(settings.start(at, 0), at, 40)) == 40


def test_equal_values_are_survived(settings: AlgorithmSettings):
    at = problem(constraints=["loss <= -1"])
    run = settings.start(at, 0)
    alike = evaluated(at, 0, (0,) * 12)
    seen = []
    for number in range(40):
        (genotype,) = run.ask(1)
        seen.append(genotype)
        run.tell([replace(alike, number=number, genotype=genotype)])
    assert len(set(seen)) == 40


def test_failed_trials_only_are_survived(settings: AlgorithmSettings):
    at = problem()
    run = settings.start(at, 0)
    seen = []
    for number in range(40):
        (genotype,) = run.ask(1)
        seen.append(genotype)
        run.tell([evaluated(at, number, genotype, failed=True)])
    assert len(set(seen)) == 40


def test_equal_trials_and_pending_ones_lead_to_the_same_proposal(settings: AlgorithmSettings):
    at = problem()
    first, again = (settings.start(at, 3) for _ in range(2))
    pending: list[Genotype] = []
    for number in range(30):
        (genotype,) = first.ask(1, pending_trials(at, pending))
        assert again.ask(1, pending_trials(at, pending)) == [genotype]
        pending.append(genotype)
        if len(pending) == 5:
            trial = evaluated(at, number, pending.pop(2), failed=number % 7 == 3)
            first.tell([trial])
            again.tell([trial])


def test_what_is_pending_is_not_proposed_whoever_proposed_it(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=3, choices=3))
    run = settings.start(at, 0)
    others = [(0, 0, 0), (1, 2, 0), (2, 2, 2)]
    proposed = run.ask(4, pending_trials(at, others))
    proposed += run.ask(30, pending_trials(at, [*others, *proposed]))
    assert len(proposed) == len({*proposed, *others}) - len(others) == 24


def test_what_was_refused_is_not_pending_and_not_proposed_again(settings: AlgorithmSettings):
    """A refused proposal is neither told nor pending; two in three are."""
    at = problem(constraints=["cost <= 1.5"])
    run = settings.start(at, 0)
    proposed: list[Genotype] = []
    for number in range(39):
        refused = proposed[-1:] if number % 3 else []
        (genotype,) = run.ask(1)
        proposed.append(genotype)
        for earlier in refused:
            holders = [
                n for n, v in vars(run).items() if isinstance(v, COLLECTIONS) and earlier in v
            ]
            assert holders == ["seen"]
        if number % 3 == 2:
            run.tell([evaluated(at, number // 3, genotype)])
    assert len(set(proposed)) == 39
    if isinstance(run, SamplerRun):
        assert not run._study.get_trials(states=[TrialState.RUNNING])


def test_refusals_do_not_end_a_search_before_the_space_does(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=3, choices=3))
    run = settings.start(at, 0)
    proposed = []
    while asked := run.ask(1):
        if len(proposed) % 4 == 0:
            run.tell([evaluated(at, len(proposed), asked[0])])
        proposed += asked
    assert len(set(proposed)) == len(proposed) == 27


@pytest.mark.parametrize("switched", [False, True])
def test_a_small_space_is_proposed_whole_and_then_nothing(
    settings: AlgorithmSettings, switched: bool
):
    at = problem(AdditiveSpace(count=3, choices=3, switched=switched))
    run = settings.start(at, 0)
    trials = searched(run, at, 100)
    everything = {at.space.canonical(g) for g in product(range(3), repeat=3)}
    assert {trial.genotype for trial in trials} == everything
    assert run.ask(5) == []
    assert run.ask(1) == []


def test_a_space_of_three_architectures(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=1, choices=3))
    single, whole = settings.start(at, 0), settings.start(at, 0)
    assert sorted(whole.ask(50)) == [(0,), (1,), (2,)]
    assert whole.ask(1) == []
    assert len(searched(single, at, 50, lookahead=1)) == 3


def test_a_space_of_one_architecture(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=2, choices=1))
    run = settings.start(at, 0)
    assert run.ask(3) == [(0, 0)]
    run.tell([evaluated(at, 0, (0, 0))])
    assert run.ask(1) == []


@pytest.mark.parametrize("limit", ["cost <= 1.5", "cost < 0.4", "cost >= 2.8", "cost <= 0.2"])
def test_limits_known_before_training_are_kept(settings: AlgorithmSettings, limit: str):
    """The first is kept by half of all 16.8 million architectures, the last by 91."""
    at = problem(constraints=[limit])
    trials = searched(settings.start(at, 0), at, 12)
    assert len(trials) == 12
    assert at.feasible_rows([trial.genotype for trial in trials]).all()
    assert len({trial.genotype for trial in trials}) == 12


def test_what_little_is_feasible_is_proposed_and_then_nothing(settings: AlgorithmSettings):
    at = problem(AdditiveSpace(count=8, choices=3), constraints=["cost <= 0.125"])
    trials = searched(settings.start(at, 0), at, 40)
    cheap = {(0,) * 8} | {(0,) * i + (1,) + (0,) * (7 - i) for i in range(8)}
    assert {trial.genotype for trial in trials} == cheap


def test_limits_that_nothing_keeps_end_the_search_with_the_nearest_value(
    settings: AlgorithmSettings,
):
    at = problem(constraints=["cost <= -1"])
    with pytest.raises(NoFeasibleArchitectureError) as caught:
        settings.start(at, 0).ask(1)
    told = re.match(
        r"search.constraints: none of 251 architectures meets cost <= -1; "
        r"nearest values seen: cost ([0-9.]+); loosen a limit or change search_space",
        str(caught.value),
    )
    assert told is not None
    assert float(told[1]) < 0.5


def test_limits_that_exclude_each_other_end_the_search(settings: AlgorithmSettings):
    at = problem(constraints=["cost <= 1", "cost >= 2"])
    with pytest.raises(NoFeasibleArchitectureError, match="meets cost <= 1, cost >= 2; nearest"):
        settings.start(at, 0).ask(1)


def test_limits_known_after_training_do_not_stop_a_search(settings: AlgorithmSettings):
    at = problem(constraints=["loss <= 0.01"])
    assert len(searched(settings.start(at, 0), at, 40)) == 40


@pytest.mark.parametrize("name", [n for n in NAMES if n != "random_search"])
def test_limits_known_after_training_steer_a_search(name: str):
    """One in seven random architectures keeps the limit."""
    at = problem(constraints=["loss <= 0.25"])
    trials = searched(algorithms.get(name).start(at, 0), at, 150)[75:]
    assert sum(at.kept(trial) for trial in trials) > 32
