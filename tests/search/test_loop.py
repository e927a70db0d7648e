from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
import torch
from additive import AdditiveSpace, loss, problem
from enumerating import NAMES

from nas.core.errors import CandidateFailure, LedgerError
from nas.core.seeding import training_seed
from nas.core.space import Genotype
from nas.core.trial import Candidate, Evaluation, Evaluator, History, Outcome, RunSegment, Trial
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.search import algorithms
from nas.search.algorithms.baselines import RandomSearch
from nas.search.loop import SearchLoop
from nas.search.problem import SearchProblem
from nas.search.schedule import Schedule, TrialRecord
from nas.search.stopping import Stopping, StopSettings

Metrics = Callable[[Candidate], Mapping[str, float]]


class ScrambledEvaluator(Evaluator):
    """Evaluates in this process; candidates end in a random order, several at a time."""

    def __init__(self, metrics: Metrics, workers: int, order_seed: int) -> None:
        self.evaluated: list[int] = []
        self.most_queued = 0
        self._metrics = metrics
        self._workers = workers
        self._rng = np.random.default_rng(order_seed)
        self._queued: list[Candidate] = []

    @property
    def workers(self) -> int:
        return self._workers

    def submit(self, candidates: Sequence[Candidate]) -> None:
        self._queued.extend(candidates)
        self.most_queued = max(self.most_queued, len(self._queued))

    def completed(self) -> list[Evaluation]:
        running = self._queued[: self._workers]
        if not running:
            return []
        ended = self._rng.permutation(len(running))[: self._rng.integers(1, len(running) + 1)]
        candidates = [running[i] for i in ended]
        self._queued = [c for c in self._queued if c not in candidates]
        self.evaluated += [candidate.number for candidate in candidates]
        return [self._evaluation(candidate) for candidate in candidates]

    def close(self) -> None:
        self._queued.clear()

    def _evaluation(self, candidate: Candidate) -> Evaluation:
        try:
            outcome = Outcome(metrics=self._metrics(candidate))
        except CandidateFailure as error:
            return Evaluation(candidate=candidate, seconds=0.5, failure=str(error))
        return Evaluation(candidate=candidate, seconds=1.5, outcome=outcome)


class ListRecord:
    """A ledger in memory, in the order of arrival."""

    def __init__(self, trials: Sequence[Trial] = (), segments: Sequence[RunSegment] = ()) -> None:
        self.arrived = list(trials)
        self.begun = list(segments)

    def trials(self) -> list[Trial]:
        return list(self.arrived)

    def append(self, *trials: Trial) -> None:
        self.arrived += trials

    def segments(self) -> list[RunSegment]:
        return list(self.begun)

    def set_segments(self, segments: Sequence[RunSegment]) -> None:
        self.begun = list(segments)


def metrics(candidate: Candidate) -> dict[str, float]:
    """Return a loss with the noise of the training's seed; every ninth candidate fails."""
    if candidate.number % 9 == 4:
        raise CandidateFailure("diverged", "the loss became nan")
    noise = np.random.default_rng(candidate.seed).normal(scale=0.01)
    return {"loss": loss(candidate.genotype) + noise}


def loop(
    record: TrialRecord,
    *,
    workers: int = 2,
    order_seed: int = 0,
    seed: int = 1,
    at: SearchProblem | None = None,
    algorithm: str = "nsga2",
    measure: Metrics = metrics,
    evaluations: int = 30,
    failures: int | None = None,
    **changes: object,
) -> SearchLoop:
    at = at or problem(constraints=["cost <= 2"])
    settings = {"population": 6} if algorithm == "nsga2" else {}
    search = SearchLoop(
        problem=at,
        algorithm=algorithms.get(algorithm, **settings).start(at, seed),
        evaluator=ScrambledEvaluator(measure, workers, order_seed),
        ledger=record,
        describe=lambda _, genotypes: [{"genes_sum": float(sum(g))} for g in genotypes],
        on_trial=lambda trial, history: None,
        study_seed=7,
        stopping=Stopping(evaluations, StopSettings(failures=failures)),
        schedule=Schedule(5),
    )
    return replace(search, **changes)


@pytest.fixture(scope="module")
def expected() -> list[Trial]:
    return loop(ListRecord(), workers=1).run()


def test_trials_are_what_the_evaluator_found(expected: list[Trial]):
    assert [trial.number for trial in expected] == list(range(30))
    for trial in expected:
        candidate = Candidate(
            number=trial.number, genotype=trial.genotype, arch_id=trial.arch_id, seed=trial.seed
        )
        cost = sum(trial.genotype) / 12
        assert trial.arch_id == problem().space.architecture(trial.genotype).arch_id
        assert trial.seed == training_seed(7, trial.arch_id)
        assert trial.facts["genes_sum"] == sum(trial.genotype)
        assert cost <= 2
        if trial.complete:
            assert trial.values == {**metrics(candidate), "cost": cost}
            assert (trial.facts["cost"], trial.seconds) == (cost, 1.5)


def test_failed_candidates_are_failed_trials(expected: list[Trial]):
    failed = [trial for trial in expected if not trial.complete]
    assert [trial.number for trial in failed] == [4, 13, 22]
    for trial in failed:
        assert trial.failure == "diverged: the loss became nan"
        assert (trial.values, trial.seconds) == ({}, 0.5)
        assert trial.facts["genes_sum"] == sum(trial.genotype)


@pytest.mark.parametrize("algorithm", NAMES)
def test_number_of_workers_and_order_of_their_results_change_nothing(algorithm: str):
    first, *others = (
        loop(
            ListRecord(), workers=workers, order_seed=order, algorithm=algorithm, evaluations=20
        ).run()
        for workers, order in [(1, 0), (2, 1), (2, 2), (5, 3), (5, 4), (50, 5)]
    )
    assert all(other == first for other in others)


def test_the_order_of_results_was_scrambled():
    record = ListRecord()
    search = loop(record, workers=5, order_seed=3)
    search.run()
    order = [trial.number for trial in record.arrived]
    assert order != sorted(order)
    assert search.evaluator.evaluated == order
    assert search.evaluator.most_queued == 5


def test_resuming_anywhere_ends_the_same_and_evaluates_nothing_twice(expected: list[Trial]):
    record = ListRecord()
    loop(record, workers=5, order_seed=3).run()
    for kept in range(len(record.arrived) + 1):
        resumed = ListRecord(record.arrived[:kept])
        search = loop(resumed, workers=5, order_seed=kept)
        assert search.run() == expected
        before = {trial.number for trial in record.arrived[:kept]}
        assert sorted(search.evaluator.evaluated) == sorted(set(range(30)) - before)
        assert len(resumed.arrived) == 30


def test_resuming_from_the_ledger_on_disk(tmp_path: Path, expected: list[Trial]):
    at = problem(constraints=["cost <= 2"])
    genes = at.space.genes

    def opened() -> Ledger:
        url = sqlite_url(tmp_path / "ledger.db")
        return Ledger.open(url, "study", list(at.objectives), genes)

    class Interrupted(Exception):  # noqa: N818 - stands for a process that is stopped
        pass

    def stop(trial: Trial, history: History | None) -> None:
        if trial.number == 11:
            raise Interrupted

    with pytest.raises(Interrupted):
        loop(opened(), workers=3, on_trial=stop).run()
    ledger = opened()
    before = {trial.number for trial in ledger.trials()}
    search = loop(ledger, workers=3, order_seed=1)
    assert search.run() == expected
    assert 11 in before
    assert before.isdisjoint(search.evaluator.evaluated)


def test_every_trial_is_reported_also_those_of_an_earlier_run(expected: list[Trial]):
    reported: dict[int, tuple[Trial, History | None]] = {}

    def report(trial: Trial, history: History | None) -> None:
        reported[trial.number] = trial, history

    loop(ListRecord(expected[:12]), on_trial=report).run()
    assert [reported[number][0] for number in sorted(reported)] == expected
    # The trainings of an earlier run have no history any more.
    assert [number for number in sorted(reported) if reported[number][1] is None] == [*range(12)]


def test_more_evaluations_continue_a_finished_search(expected: list[Trial]):
    record = ListRecord(expected)
    search = loop(record, evaluations=35)
    longer = search.run()
    assert longer[:30] == expected
    assert sorted(search.evaluator.evaluated) == [30, 31, 32, 33, 34]
    assert longer == loop(ListRecord(), workers=1, evaluations=35).run()


def test_fewer_evaluations_leave_the_rest_of_the_ledger_alone(expected: list[Trial]):
    record = ListRecord(expected)
    assert loop(record, evaluations=10).run() == expected[:10]
    assert len(record.arrived) == 30


@pytest.mark.parametrize(
    "changes",
    [{"seed": 2}, {"at": problem(AdditiveSpace(count=13))}, {"algorithm": "random_search"}],
    ids=["seed", "space", "algorithm"],
)
def test_changed_settings_are_refused(expected: list[Trial], changes: dict[str, object]):
    with pytest.raises(LedgerError, match=r"trial \d+ is architecture .*settings .*have changed"):
        loop(ListRecord(expected), **changes).run()


def test_a_space_smaller_than_the_number_of_evaluations_ends_the_search():
    at = problem(AdditiveSpace(count=2, choices=3))
    trials = loop(ListRecord(), at=at, workers=4, order_seed=1).run()
    assert len(trials) == len({trial.genotype for trial in trials}) == 9


def test_the_searching_process_keeps_to_one_thread():
    """The other cores are the workers'."""
    np.ones((2, 2)) @ np.ones((2, 2))
    found = set()

    class Watching(RandomSearch):
        def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
            found.update(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
            found.add(torch.get_num_threads())
            return super().ask(n, pending)

    at, threads = problem(), torch.get_num_threads()
    with threadpoolctl.threadpool_limits(2):
        torch.set_num_threads(2)
        replace(loop(ListRecord(), at=at), algorithm=Watching(at, 0)).run()
    torch.set_num_threads(threads)
    assert found == {1}


def test_fewer_evaluations_than_lookahead():
    search = loop(ListRecord(), evaluations=3)
    assert [trial.number for trial in search.run()] == [0, 1, 2]
    assert search.evaluator.most_queued == 3


def test_all_candidates_failing_is_a_search_without_complete_trials():
    def fail(candidate: Candidate) -> Mapping[str, float]:
        raise CandidateFailure("worker_died", "gone")

    trials = loop(ListRecord(), measure=fail).run()
    assert len(trials) == 30
    assert not any(trial.complete for trial in trials)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_a_failure(value: float):
    at = problem(constraints=["loss <= 0.5"])
    trials = loop(ListRecord(), at=at, measure=lambda candidate: {"loss": value}).run()
    assert {trial.failure for trial in trials} == {f"diverged: loss is {value}"}
    assert all(not trial.values and "loss" not in trial.facts for trial in trials)


def test_a_limit_on_what_training_finds_is_recorded_with_the_trial():
    at = problem(constraints=["loss <= 0.5"], objectives="cost")
    for trial in loop(ListRecord(), at=at).run():
        assert list(trial.values) == (["cost"] if trial.complete else [])
        assert ("loss" in trial.facts) == trial.complete
