from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _shared.tabular import TabularBenchmark
from additive import AdditiveSpace, Loss, evaluated, problem, searched
from test_algorithm_conformance import pending_trials
from test_nsga2 import front_volume

from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.results.hypervolume import hypervolume, non_dominated
from nas.search import algorithms
from nas.search.surrogates.acquisition import Acquisition, Candidates


def missing_share(
    benchmark: TabularBenchmark, trials: list[Trial], reference: float, fastest: float = 0.01
) -> float:
    """Return which share of the table's hypervolume is missing: of errors and log latencies.

    Of the networks below the reference error, the share `fastest` is not told apart in latency.
    """
    points = benchmark.points()
    points[:, 1:] = np.log(points[:, 1:])
    good = points[points[:, 0] < reference]
    points[:, 1:] = np.maximum(points[:, 1:], np.quantile(good, fastest, axis=0)[1:])
    corner = [reference, *points[:, 1:].max(axis=0)]
    found = points[benchmark.table.rows([trial.genotype for trial in trials])]
    true = points[non_dominated(points)]
    return 1 - hypervolume(found, corner) / hypervolume(true, corner)


@pytest.mark.parametrize(
    ("device", "fastest", "missing"), [("pixel2", 0.01, 0.025), ("eyeriss", 0.0, 0.05)]
)
def test_it_finds_the_front_of_a_published_table(device: str, fastest: float, missing: float):
    """Of 15,625 networks 60 are trained; random search then misses 10 %."""
    benchmark = TabularBenchmark.load("nasbench201", "cifar10", [device])
    run = algorithms.get("guided").start(benchmark.problem, 0)
    trials: list[Trial] = []
    for number in range(60):
        trials.append(benchmark.trial(number, run.ask(1)[0]))
        run.tell(trials[-1:])
    assert missing_share(benchmark, trials, 30.0, fastest) < missing


def test_a_planted_optimum_is_found_with_a_tenth_of_the_trials_of_nsga2():
    at = problem(objectives="loss")
    trials = searched(algorithms.get("guided").start(at, 0), at, 60)
    best = min((t for t in trials if t.complete), key=lambda t: t.values["loss"])
    assert best.genotype == (3,) * 12


@pytest.mark.slow
def test_its_front_is_better_than_that_of_nsga2_at_three_times_the_budget():
    """In the mean of three seeds."""
    at = problem()
    guided, evolved = (
        [
            front_volume(searched(algorithms.get(name).start(at, seed), at, trials))
            for seed in range(3)
        ]
        for name, trials in (("guided", 60), ("nsga2", 180))
    )
    assert np.mean(guided) > np.mean(evolved)


def test_learning_what_is_known_costs_trials():
    at = problem()
    hidden = replace(at, objectives={**at.objectives, "cost": Loss()})
    volumes = [
        front_volume(searched(algorithms.get("guided").start(seen, 0), at, 50))
        for seen in (at, hidden)
    ]
    assert volumes[0] > volumes[1]
    assert volumes[1] > front_volume(searched(algorithms.get("nsga2").start(at, 0), at, 50))


def test_a_limit_known_after_training_steers_the_search():
    at = problem(constraints=["loss <= 0.1"], objectives="cost")
    trials = searched(algorithms.get("guided").start(at, 0), at, 60)
    kept = [t for t in trials if t.complete and at.violations(t)[0] <= 0]
    assert len(kept) > 5
    assert min(t.values["cost"] for t in kept) < 2.3


def test_the_first_proposals_are_spread_over_what_is_known():
    at = problem(AdditiveSpace(count=6))
    first = algorithms.get("guided", initial=10).start(at, 0).ask(10)
    costs = sorted(at.known(first), key=lambda known: known["cost"])
    assert costs[0]["cost"] < 1.0 < 2.0 < costs[-1]["cost"]


def test_what_is_under_evaluation_is_not_proposed_in_other_words():
    """Of eight proposals without a result between them, each adds to the expected front."""
    at = problem()
    run = algorithms.get("guided").start(at, 0)
    run.tell([evaluated(at, i, genotype) for i, genotype in enumerate(run.ask(20))])
    costs = {known["cost"] for known in at.known(run.ask(8))}
    assert len(costs) >= 6


def test_short_trainings_are_learned_from_and_make_no_front():
    at = problem(objectives="loss")
    run = algorithms.get("guided").start(at, 0)
    for number in range(40):
        (genotype,) = run.ask(1)
        trial = evaluated(at, number, genotype)
        run.tell([replace(trial, fidelity=0.25, values={"loss": 0.5 + 0.3 * trial.values["loss"]})])
    mean = np.mean([evaluated(at, 0, genotype).values["loss"] for genotype in run.ask(5)])
    assert mean < 0.1


def test_a_failed_promotion_is_not_expected_to_turn_out_well(monkeypatch: pytest.MonkeyPatch):
    at = problem()
    run = algorithms.get("guided").start(at, 0)
    first, *others = [evaluated(at, i, genotype) for i, genotype in enumerate(run.ask(20))]
    expected: list[Genotype] = []

    learn = Acquisition.learn

    def noted(
        acquisition: Acquisition, told: list[Trial], features: FloatArray, unsettled: Candidates
    ) -> None:
        expected[:] = unsettled.tuples
        learn(acquisition, told, features, unsettled)

    monkeypatch.setattr(Acquisition, "learn", noted)
    run.tell([replace(first, fidelity=0.25), *others])
    promoted = pending_trials(at, [first.genotype])
    [proposed] = run.ask(1, promoted)
    assert expected == [first.genotype]
    run.tell([replace(first, number=20, values={}, failure="crashed: promoted")])
    run.ask(1, pending_trials(at, [proposed]))
    assert expected == [proposed]
    run.ask(1)
    assert expected == []


def test_a_search_of_an_objective_that_is_known_needs_no_model():
    at = problem(objectives="cost")
    trials = searched(algorithms.get("guided").start(at, 0), at, 40)
    assert min(t.values["cost"] for t in trials if t.complete) == 0


@pytest.mark.parametrize(("name", "value"), [("initial", 0), ("candidates", 9), ("generations", 0)])
def test_a_wrong_setting_is_named(name: str, value: int):
    with pytest.raises(ConfigError, match=f"search.algorithm.{name}: got {value}"):
        algorithms.get("guided", **{name: value})
