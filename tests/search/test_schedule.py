from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from additive import problem
from simulated import SimulatedEvaluator
from test_loop import ListRecord, loop

from nas.core.errors import LedgerError
from nas.core.space import Genotype
from nas.core.trial import Candidate, RunSegment, SearchAlgorithm, Trial
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.search import algorithms
from nas.search.loop import SearchLoop
from nas.search.schedule import Asynchronous, Schedule


class Overheard(SearchAlgorithm):
    """An algorithm that notes what was asked and told."""

    def __init__(self, algorithm: SearchAlgorithm) -> None:
        self.events: list[tuple[str, int | Genotype]] = []
        self._algorithm = algorithm

    def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
        proposed = self._algorithm.ask(n, pending)
        self.events += [("asked", genotype) for genotype in proposed]
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        self.events += [("told", trial.number) for trial in trials]
        self._algorithm.tell(trials)


def asynchronous(record: ListRecord, workers: int = 4, **changes: object) -> SearchLoop:
    algorithm = Overheard(algorithms.get("nsga2", population=6).start(problem(), 1))
    given = {
        "at": problem(),
        "algorithm": "nsga2",
        "evaluator": SimulatedEvaluator(workers),
        "schedule": Asynchronous(workers),
    }
    search = loop(record, **{**given, **changes})
    search.algorithm = algorithm
    return search


@pytest.fixture(scope="module")
def whole() -> tuple[ListRecord, list[tuple[str, int | Genotype]]]:
    """Return what an asynchronous search that ran at one go recorded, asked and told."""
    record = ListRecord()
    search = asynchronous(record)
    search.run()
    assert isinstance(search.algorithm, Overheard)
    return record, search.algorithm.events


def used(search: SearchLoop, workers: int) -> float:
    """Return the share of its workers' time that a search has used."""
    started_s = search.evaluator.clock()
    search.run()
    assert isinstance(search.evaluator, SimulatedEvaluator)
    return search.evaluator.busy_s / (workers * (search.evaluator.clock() - started_s))


def test_asynchronous_workers_never_wait_where_those_of_a_batch_do():
    shares = [
        used(asynchronous(ListRecord(), schedule=schedule, evaluations=200), 4)
        for schedule in (Asynchronous(4), Schedule(4))
    ]
    # All that is lost is the end, where fewer candidates are left than there are workers.
    assert shares[0] > 0.95
    assert shares[1] < 0.75


def test_what_has_ended_is_told_before_the_next_candidate_is_asked_for(whole):
    record, events = whole
    told = [number for what, number in events if what == "told"]
    assert told == [trial.number for trial in record.arrived]
    assert told != sorted(told)
    asked = 0
    for position, (what, _) in enumerate(events):
        if what == "asked":
            before = sum(what == "told" for what, _ in events[:position])
            # Four are under way; every end is followed by a question.
            assert before == max(0, asked - 3)
            asked += 1
    assert asked == 30


def test_the_clock_of_a_search_tells_when_its_trials_ended(whole):
    record, _ = whole
    times = [trial.ended_s for trial in record.arrived]
    assert times == sorted(set(times))
    first = record.arrived[0]
    assert first.ended_s == pytest.approx(first.seconds)
    assert sum(trial.seconds for trial in record.arrived) <= 4 * times[-1]


def test_candidates_that_end_together_are_told_together():
    record = ListRecord()
    search = asynchronous(record, 3, evaluator=SimulatedEvaluator(3, lambda candidate: 2.0))
    search.run()
    assert [trial.ended_s for trial in record.arrived[:6]] == [2, 2, 2, 4, 4, 4]
    kinds = [what for what, _ in search.algorithm.events]
    assert kinds == [*["asked"] * 3, *["told"] * 3] * 10


def test_candidates_that_end_together_are_recorded_and_submitted_together(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("nas.search.loop.SUBMIT_S", math.inf)
    submitted: list[int] = []

    class Workers(SimulatedEvaluator):
        def submit(self, candidates: Sequence[Candidate]) -> None:
            submitted.append(len(candidates))
            super().submit(candidates)

    class Record(ListRecord):
        def append(self, *trials: Trial) -> None:
            appended.append(len(trials))
            super().append(*trials)

    appended: list[int] = []
    asynchronous(Record(), 3, evaluator=Workers(3, lambda candidate: 2.0)).run()
    assert submitted == appended == [3] * 10


def test_going_on_anywhere_loses_nothing_and_replays_what_was_asked_and_told(whole):
    record, events = whole
    for kept in range(0, 31, 3):
        for workers in (2, 4, 7):
            resumed = ListRecord(record.arrived[:kept], record.begun)
            search = asynchronous(resumed, workers)
            trials = search.run()
            assert resumed.arrived[:kept] == record.arrived[:kept]
            before = {trial.number for trial in record.arrived[:kept]}
            assert sorted(search.evaluator.evaluated) == sorted(set(range(30)) - before)
            assert [trial.number for trial in trials] == list(range(30))
            assert len({trial.genotype for trial in trials}) == 30
            told = [number for what, number in search.algorithm.events if what == "told"]
            assert told == [trial.number for trial in resumed.arrived]
            # Up to the last candidate that was recorded, everything was asked and told as before.
            last = max(before, default=-1)
            asked = [place for place, (what, _) in enumerate(events) if what == "asked"]
            until = asked[last] + 1 if before else 0
            assert search.algorithm.events[:until] == events[:until]


def test_a_search_interrupted_again_and_again_is_replayed_through_all_its_segments(whole):
    record = ListRecord()
    for stop, workers in [(5, 4), (9, 2), (10, 6), (18, 3), (18, 1), (30, 5)]:
        search = asynchronous(record, workers)
        search.run()
        del record.arrived[stop:]
    times = [trial.ended_s for trial in record.arrived]
    assert times == sorted(times)
    replayed = asynchronous(ListRecord(record.arrived, record.begun), 8)
    trials = replayed.run()
    assert not replayed.evaluator.evaluated
    assert [trial.number for trial in trials] == list(range(30))
    told = [number for what, number in replayed.algorithm.events if what == "told"]
    assert told == [trial.number for trial in record.arrived]


def test_a_new_leg_knows_everything_that_has_ended(whole):
    record, _ = whole
    resumed = ListRecord(record.arrived, record.begun)
    search = asynchronous(resumed, 4, evaluations=36)
    search.run()
    events = [what for what, _ in search.algorithm.events]
    assert events[60:64] == ["asked"] * 4, "the 30 that were asked and told come first"
    assert resumed.begun == [
        RunSegment(asked=0, told=0, lookahead=4),
        RunSegment(asked=30, told=30, lookahead=4),
    ]
    replayed = asynchronous(ListRecord(resumed.arrived, resumed.begun), 4, evaluations=36)
    replayed.run()
    assert replayed.algorithm.events == search.algorithm.events


def test_a_leg_of_which_nothing_was_recorded_leaves_no_trace():
    record = ListRecord([], [RunSegment(asked=0, told=0, lookahead=9)])
    asynchronous(record, 2).run()
    assert record.begun == [RunSegment(asked=0, told=0, lookahead=2)]


def test_an_asynchronous_search_goes_on_from_the_ledger_on_disk(tmp_path: Path, whole):
    at = problem()

    def opened() -> Ledger:
        url = sqlite_url(tmp_path / "ledger.db")
        return Ledger.open(url, "study", list(at.objectives), at.space.genes)

    asynchronous(opened(), evaluations=12).run()
    ledger = opened()
    assert ledger.segments() == [RunSegment(asked=0, told=0, lookahead=4)]
    search = asynchronous(ledger, 3, evaluations=16)
    search.run()
    assert sorted(search.evaluator.evaluated) == [12, 13, 14, 15]
    trials = sorted(ledger.trials(), key=lambda trial: trial.ended_s)
    told = [number for what, number in search.algorithm.events if what == "told"]
    assert told == [trial.number for trial in trials]
    assert len({trial.ended_s for trial in trials}) == 16


def test_changed_settings_are_refused_in_an_asynchronous_search_too(whole):
    record, _ = whole
    search = asynchronous(ListRecord(record.arrived, record.begun))
    search.algorithm = algorithms.get("nsga2", population=6).start(problem(), 2)
    with pytest.raises(LedgerError, match=r"trial \d+ is architecture .*settings .*have changed"):
        search.run()
