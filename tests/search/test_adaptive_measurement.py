from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from additive import evaluated
from enumerating import NAMES
from measured_problem import (
    Estimate,
    FakeDevice,
    Memory,
    adaptive_measurement,
    estimate_ms,
    latency_problem,
    true_ms,
)
from test_loop import ListRecord, ScrambledEvaluator, metrics

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import Candidate, SearchAlgorithm, Trial
from nas.search import algorithms
from nas.search.adaptive_measurement import AdaptiveMeasurementSettings
from nas.search.loop import SearchLoop
from nas.search.proposer import WarmStart
from nas.search.schedule import Asynchronous, Schedule
from nas.search.stopping import Stopping

LIMIT_MS = 1.6
CONSTRAINT = f"latency_ms <= {LIMIT_MS}"


@dataclass
class Run:
    """One search with all that it left."""

    trials: list[Trial] = field(default_factory=list)
    ledger: ListRecord = field(default_factory=ListRecord)
    record: Memory = field(default_factory=Memory)
    device: FakeDevice = field(default_factory=FakeDevice)
    trained: list[int] = field(default_factory=list)


def search(
    *constraints: str,
    workers: int = 2,
    order_seed: int = 0,
    measurements: int = 10,
    algorithm: str = "nsga2",
    objectives: tuple[str, ...] = ("loss", "latency_ms"),
    before: Run | None = None,
    evaluations: int = 30,
    fails_at: frozenset[int] = frozenset(),
    schedule: Schedule | None = None,
) -> Run:
    before = before or Run()
    run = Run(ledger=before.ledger, record=before.record, device=FakeDevice(fails_at))
    at = latency_problem(*constraints, objectives=objectives)
    settings = {"population": 6} if algorithm == "nsga2" else {}
    evaluator = ScrambledEvaluator(metrics, workers, order_seed)
    run.trials = SearchLoop(
        problem=at,
        algorithm=algorithms.get(algorithm, **settings).start(at, 1),
        evaluator=evaluator,
        ledger=run.ledger,
        describe=lambda _, genotypes: [{} for _ in genotypes],
        on_trial=lambda trial, history: None,
        study_seed=7,
        stopping=Stopping(evaluations),
        schedule=schedule or Schedule(5),
        adaptive_measurement=adaptive_measurement(at, run.record, run.device, measurements),
    ).run()
    run.trained = evaluator.evaluated
    return run


def stopped(run: Run, trials: int, decided: int) -> Run:
    """Return what a killed search leaves: the first trials that arrived, the first decisions."""
    return Run(
        ledger=ListRecord(run.ledger.arrived[:trials]),
        record=Memory(copy.copy(run.record.rows[:decided])),
    )


def test_a_candidate_near_the_limit_is_measured_before_it_is_trained():
    run = search(CONSTRAINT, objectives=("loss",))
    trained = {trial.arch_id: trial for trial in run.trials}
    assert {row.reason for row in run.record.rows} == {"constraint"}
    assert 1 < len(run.record.rows) <= 10
    assert len(run.trials) == 30, "what is refused does not count as an evaluation"
    for row in run.record.rows:
        assert row.low_ms <= LIMIT_MS < row.high_ms
        assert row.kept == (true_ms(row.genotype) <= LIMIT_MS)
        assert (row.arch_id in trained) == row.kept
        if row.kept:
            trial = trained[row.arch_id]
            assert trial.number == row.number
            # What is predicted and what was measured stand apart.
            expected = (estimate_ms(row.genotype) + true_ms(row.genotype)) / 2
            assert trial.facts["latency_ms_measured"] == pytest.approx(true_ms(row.genotype))
            if trial.complete:
                assert trial.facts["latency_ms_predicted"] == pytest.approx(expected)
    assert {row.kept for row in run.record.rows} == {True, False}


class Listening(SearchAlgorithm):
    """Any algorithm, and what it has proposed and was told."""

    def __init__(self, algorithm: SearchAlgorithm) -> None:
        self.proposed: list[Genotype] = []
        self.told: list[Trial] = []
        self.pending: set[Genotype] = set()
        self._algorithm = algorithm

    def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
        asked = self._algorithm.ask(n, pending)
        self.proposed += asked
        self.pending.update(candidate.genotype for candidate in pending)
        return asked

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials
        self._algorithm.tell(trials)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("algorithm", NAMES)
def test_what_is_refused_is_never_pending_and_all_else_is_told(algorithm: str, warm: bool):
    """Here latency is only a limit, so that what is refused is nowhere among the objectives."""
    at = latency_problem(CONSTRAINT, objectives=("loss",))
    listening = Listening(algorithms.get(algorithm).start(at, 1))
    near = [g for i in range(40) if LIMIT_MS > estimate_ms(g := (i % 4,) * 8 + (2, 2, 1, 1)) > 1.5]
    record, ledger = Memory(), ListRecord()
    trials = SearchLoop(
        problem=at,
        algorithm=WarmStart(listening, at, near) if warm else listening,
        evaluator=ScrambledEvaluator(metrics, 3, 0),
        ledger=ledger,
        describe=lambda _, genotypes: [{} for _ in genotypes],
        on_trial=lambda trial, history: None,
        study_seed=7,
        stopping=Stopping(30),
        schedule=Schedule(5),
        adaptive_measurement=adaptive_measurement(at, record, FakeDevice(), 40),
    ).run()
    refused = [row.genotype for row in record.rows if not row.kept]
    assert refused
    told = {trial.genotype for trial in listening.told}
    assert {*listening.proposed} - {*refused} <= told | listening.pending
    assert not {*refused} & (told | listening.pending)
    # The study knows nothing of them.
    assert len(trials) == len(ledger.arrived) == 30
    assert [trial.number for trial in trials] == list(range(30))
    assert not {trial.genotype for trial in trials} & set(refused)


def test_every_trained_candidate_near_the_limit_was_measured_while_the_budget_lasts():
    run = search(CONSTRAINT, objectives=("loss",), measurements=1000)
    predictor = Estimate()
    for trial in run.trials:
        low, high = (float(end[0]) for end in predictor.predict([trial.genotype]).interval_ms(0.9))
        near = low <= LIMIT_MS < high
        assert ("latency_ms_measured" in trial.facts) == near
        assert true_ms(trial.genotype) <= LIMIT_MS or not near


def test_a_trial_that_may_be_on_the_front_is_measured_when_its_error_is_known():
    run = search()
    assert {row.reason for row in run.record.rows} == {"front"}
    by_number = {trial.number: trial for trial in run.trials}
    for row in run.record.rows:
        trial = by_number[row.number]
        assert trial.facts["latency_ms_measured"] == pytest.approx(true_ms(row.genotype))
        assert trial.values["latency_ms"] == row.updated_ms

        def dominated(latency_ms: float, number: int = row.number) -> bool:
            own = by_number[number].values["loss"]
            return any(
                other.values["loss"] <= own and other.values["latency_ms"] <= latency_ms
                for other in run.trials[:number]
                if other.complete
            )

        assert not dominated(row.low_ms)
        assert dominated(row.high_ms)
    # The ledger holds what was known when the trial ended.
    recorded = {trial.number: trial for trial in run.ledger.arrived}
    assert all("latency_ms_measured" not in trial.facts for trial in recorded.values())


def test_what_was_measured_is_judged_by_the_measurement():
    at = latency_problem(CONSTRAINT)
    genotype = next(
        g for g in ((i % 4, 1) + (1,) * 10 for i in range(4)) if estimate_ms(g) <= LIMIT_MS
    )
    trial = evaluated(at, 0, genotype)
    assert at.violations(trial)[0] <= 0
    broken = {**trial.facts, "latency_ms_measured": LIMIT_MS + 0.1}
    assert at.violations(replace(trial, facts=broken))[0] == pytest.approx(0.1)


@pytest.mark.parametrize("constraints", [(), (CONSTRAINT,)], ids=["front", "both"])
@pytest.mark.parametrize("algorithm", NAMES)
def test_number_of_workers_changes_nothing(algorithm: str, constraints: tuple[str, ...]):
    first, *others = (
        search(*constraints, workers=workers, order_seed=seed, algorithm=algorithm)
        for workers, seed in [(1, 0), (5, 3), (50, 5)]
    )
    assert first.record.rows
    for other in others:
        assert other.trials == first.trials
        assert other.record.rows == first.record.rows


@pytest.mark.parametrize("fails_at", [frozenset[int](), frozenset({0, 3})], ids=["", "failing"])
def test_a_killed_search_goes_on_the_same_and_measures_nothing_twice(fails_at: frozenset[int]):
    whole = search(CONSTRAINT, workers=3, order_seed=2, fails_at=fails_at)
    count = len(whole.record.rows)
    assert count > 4
    for trials in range(0, 31, 3):
        # Decisions are taken in the order of the numbers, ahead of the trials that follow them.
        known = {trial.arch_id for trial in whole.ledger.arrived[:trials]}
        needed = [i for i, row in enumerate(whole.record.rows) if row.arch_id in known]
        for decided in {max(needed, default=-1) + 1, count}:
            before = stopped(whole, trials, decided)
            # A device that failed then and works now changes no decision that was recorded.
            failing = frozenset(i - decided for i in fails_at if i >= decided)
            again = search(CONSTRAINT, workers=3, order_seed=9, before=before, fails_at=failing)
            assert again.trials == whole.trials
            assert again.record.rows == whole.record.rows
            assert len(again.device.measured) == count - decided
            assert len(again.trained) == 30 - trials


def test_a_device_that_fails_leaves_the_prediction():
    run = search(CONSTRAINT, fails_at=frozenset(range(10)))
    assert len(run.trials) == 30
    assert [row.failure for row in run.record.rows] == ["board: gone"] * 10
    assert all("latency_ms_measured" not in trial.facts for trial in run.trials)
    trained = {trial.arch_id for trial in run.trials}
    assert all(row.arch_id in trained for row in run.record.rows)


def test_no_more_is_measured_than_allowed():
    for measurements in (1, 3):
        run = search(CONSTRAINT, measurements=measurements)
        assert len(run.device.measured) == len(run.record.rows) == measurements


def test_a_space_of_which_everything_is_refused_ends_the_search():
    # The only feasible ones by the estimate are the least; measured, some of them are not.
    run = search("latency_ms <= 0.5", measurements=1000)
    least = (0,) * 12
    assert [trial.genotype for trial in run.trials] == ([least] if true_ms(least) <= 0.5 else [])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"search\.adaptive_measurement\.measurements: got -1"):
        AdaptiveMeasurementSettings(measurements=-1)
    with pytest.raises(ConfigError, match=r"search\.adaptive_measurement\.coverage: got 1"):
        AdaptiveMeasurementSettings(coverage=1.0)


def test_an_asynchronous_search_takes_its_decisions_again_when_it_goes_on():
    whole = search(workers=4, order_seed=3, schedule=Asynchronous(4))
    assert {row.reason for row in whole.record.rows} == {"front"}
    for trials in (0, 7, 18, 30):
        # Decisions on trials that were told before the last of these had ended.
        arrived = {trial.number for trial in whole.ledger.arrived[: max(trials - 4, 0)]}
        decided = sum(row.number in arrived for row in whole.record.rows)
        before = stopped(whole, trials, decided)
        before.ledger.begun = list(whole.ledger.begun)
        resumed = search(workers=4, order_seed=3, schedule=Asynchronous(4), before=before)
        assert resumed.record.rows[:decided] == whole.record.rows[:decided]
        again = search(schedule=Asynchronous(4), before=resumed)
        assert again.trials == resumed.trials
        assert not again.device.measured
        assert not again.trained
