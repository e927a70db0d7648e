from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from additive import AdditiveSpace, evaluated, problem
from simulated import SimulatedEvaluator
from test_loop import ListRecord, loop

from nas.core.errors import CandidateFailure, ConfigError
from nas.core.trial import Candidate, Trial, full_trainings
from nas.results.hypervolume import hypervolume
from nas.search.loop import SearchLoop
from nas.search.schedule import Asynchronous, Schedule
from nas.search.stopping import Stop, Stopping, StopSettings

SCHEDULES = (Schedule(4), Asynchronous(4))


def search(
    record: ListRecord, schedule: Schedule = SCHEDULES[0], evaluations: int = 200, **limits: object
) -> SearchLoop:
    settings = StopSettings(**limits)  # type: ignore[arg-type]
    return loop(
        record,
        at=problem(),
        schedule=schedule,
        evaluator=SimulatedEvaluator(4),
        stopping=Stopping(evaluations, settings, volume),
    )


def volume(trials: Sequence[Trial]) -> float:
    points = [list(trial.values.values()) for trial in trials if trial.complete]
    return hypervolume(points, [3.0, 3.0])


def stopped(record: ListRecord, search: SearchLoop) -> tuple[list[Trial], Stop]:
    trials = search.run()
    assert search.stop is not None
    # Started again under the same limits it asks for nothing more and says the same.
    again = loop(
        ListRecord(record.arrived, record.begun),
        at=problem(),
        schedule=type(search.schedule)(4),
        evaluator=SimulatedEvaluator(4),
        stopping=Stopping(search.stopping.evaluations, search.stopping.settings, volume),
    )
    assert again.run() == trials
    assert again.stop == search.stop
    return trials, search.stop


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["batch", "async"])
def test_wall_clock_ends_a_search_and_a_higher_limit_goes_on(schedule: Schedule):
    record = ListRecord()
    first, stop = stopped(record, search(record, schedule, wall_clock_s=100))
    assert stop.by == "wall_clock_s"
    # What was under way is cut, and what was queued does not begin.
    assert max(trial.ended_s for trial in first) == pytest.approx(100)
    assert 1 <= sum(trial.cut for trial in first) <= 4
    for trial in first:
        assert trial.cut == (trial.fidelity < 1) == (trial.ended_s >= 99.999)
    second, stop = stopped(record, search(record, schedule, wall_clock_s=200))
    assert stop.by == "wall_clock_s"
    assert second[: len(first)] == first
    assert len(second) > len(first)
    resumed = {trial.arch_id for trial in first if trial.cut}
    assert resumed <= {trial.arch_id for trial in second if trial.full}
    trainings = len({trial.arch_id for trial in second}) + 5
    third, stop = stopped(record, search(record, schedule, evaluations=trainings))
    assert stop.by == "evaluations"
    assert full_trainings(third) == len({trial.arch_id for trial in third}) == trainings


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["batch", "async"])
def test_a_search_that_was_cut_can_be_killed_anywhere_and_limited_anew(schedule: Schedule):
    record = ListRecord()
    first = search(record, schedule, wall_clock_s=60).run()
    cut = len(first)
    search(record, schedule, wall_clock_s=120).run()
    for kept in range(cut, len(record.arrived) + 1, 3):
        killed = ListRecord(record.arrived[:kept], record.segments())
        # A lower limit asks for nothing new, and a higher one goes on with what was cut.
        assert len(search(killed, schedule, wall_clock_s=30).run()) <= kept + 4
        trials = search(killed, schedule, wall_clock_s=180).run()
        assert killed.arrived[:kept] == record.arrived[:kept]
        full = {trial.arch_id for trial in trials if trial.full}
        assert {t.arch_id for t in trials if t.cut and t.ended_s < 170} <= full
        assert len(full) == sum(trial.full for trial in trials)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["batch", "async"])
def test_what_was_cut_counts_as_its_share(schedule: Schedule):
    record = ListRecord()
    number = len(search(record, schedule, wall_clock_s=50).run())
    again = ListRecord()
    # All that may be asked for was asked for, so that time alone ends the search.
    _, stop = stopped(again, search(again, schedule, evaluations=number, wall_clock_s=50))
    assert stop.by == "wall_clock_s"
    trials, stop = stopped(again, search(again, schedule, evaluations=number))
    assert stop.by == "evaluations"
    assert full_trainings(trials) == number


def test_time_that_is_planned_anew_with_every_trial_ends_a_search():
    record = ListRecord()

    def planned_s(trials: Sequence[Trial]) -> float:
        return 90.0 - len(trials)

    planned = search(record)
    planned.stopping.planned_s = planned_s
    trials = planned.run()
    assert planned.stop is not None
    assert planned.stop.by == "budget"
    last_s = max(trial.ended_s for trial in trials)
    # What runs is cut when it was to be cut as it began.
    assert planned_s(trials) <= last_s <= planned_s(trials) + 8
    again = search(record)
    again.stopping.planned_s = planned_s
    assert again.run() == trials
    assert again.stop == planned.stop
    # Where there is more time than there seemed to be, what was cut goes on in the same run.
    wider = search(ListRecord())
    wider.stopping.planned_s = lambda trials: 40.0 if len(trials) < 12 else 80.0
    trials = wider.run()
    early = {trial.arch_id for trial in trials if trial.cut and trial.ended_s < 79}
    assert early
    assert early <= {trial.arch_id for trial in trials if trial.full}


def test_seconds_on_workers_count_those_of_failed_trials():
    record = ListRecord()
    limited = search(record, worker_s=300, failures=None)

    def fail(candidate: Candidate) -> dict[str, float]:
        return {"loss": math.nan}

    limited.evaluator = SimulatedEvaluator(4, metrics=fail)
    trials = limited.run()
    assert limited.stop is not None
    assert limited.stop.by == "worker_s"
    assert not any(trial.complete for trial in trials)
    seconds = [trial.seconds for trial in record.arrived]
    assert sum(seconds[:-4]) < 300 <= sum(seconds)


def test_growth_of_the_hypervolume_is_that_over_the_window():
    def at(number: int, loss: float, ended_s: float) -> Trial:
        values = {"loss": loss, "cost": 1.0}
        return Trial(
            number=number, genotype=(0,), arch_id="", seed=0, values=values, ended_s=ended_s
        )

    early = [at(0, 2.0, 600.0), at(1, 2.5, 1200.0)]
    # By hand: (3 - 2) * (3 - 1) = 2 grows to (3 - 1.8) * (3 - 1) = 2.4 within 3600 - 600 = 3000 s,
    # which is 24 % an hour.
    for least, ends in [(23.9, False), (24.1, True)]:
        stopping = Stopping(100, StopSettings(gain_percent_per_hour=least, gain_window=2), volume)
        stopping.note(early)
        assert stopping.reached(2) is None, "there is nothing before the window yet"
        stopping.note([at(2, 1.8, 3600.0)])
        stop = stopping.reached(3)
        assert (stop is not None) == ends
        assert stop is None or "grew by 24 % an hour over the last 2 trials" in stop.detail


@pytest.mark.parametrize("window", [1, 3])
def test_trials_that_ended_together_tell_no_rate(window: int):
    """As candidates of simulated workers do, or such as Ray reports at once."""
    at = problem()
    stopping = Stopping(100, StopSettings(gain_percent_per_hour=1e9, gain_window=window), volume)
    trials = [evaluated(at, i, (0,) * i + (3,) * (12 - i)) for i in range(5)]
    stopping.note([replace(trial, ended_s=5.0) for trial in trials[:4]])
    assert stopping.reached(4) is None
    stopping.note([replace(trials[4], ended_s=6.0)])
    assert (stopping.reached(5) or Stop("", "")).by == "gain_percent_per_hour"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["batch", "async"])
def test_a_search_that_gains_little_ends(schedule: Schedule):
    record = ListRecord()
    trials, stop = stopped(
        record, search(record, schedule, gain_percent_per_hour=40.0, gain_window=16)
    )
    assert stop.by == "gain_percent_per_hour"
    assert 16 < len(trials) < 200
    more = search(record, schedule, gain_percent_per_hour=1e-9, evaluations=len(trials) + 3)
    assert len(more.run()) == len(trials) + 3


def test_whichever_limit_comes_first_is_named():
    for limits, by in [
        ({"wall_clock_s": 50.0, "worker_s": 1e6}, "wall_clock_s"),
        ({"wall_clock_s": 1e6, "worker_s": 50.0}, "worker_s"),
        ({"wall_clock_s": 1e6, "worker_s": 1e6, "evaluations": 9}, "evaluations"),
    ]:
        record = ListRecord()
        assert stopped(record, search(record, **limits))[1].by == by  # type: ignore[arg-type]


def test_a_lower_limit_keeps_what_is_recorded():
    record = ListRecord()
    trials = search(record, evaluations=30).run()
    lower = search(record, wall_clock_s=1.0)
    assert lower.run() == trials
    assert lower.stop is not None
    assert lower.stop.by == "wall_clock_s"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["batch", "async"])
def test_an_objective_that_is_never_a_number_ends_the_search_early(schedule: Schedule):
    record = ListRecord()
    hopeless = search(record, schedule)
    hopeless.evaluator = SimulatedEvaluator(4, metrics=lambda candidate: {"loss": math.nan})
    trials = hopeless.run()
    assert hopeless.stop is not None
    assert hopeless.stop.by == "failures"
    assert 10 <= len(trials) <= 13
    assert {trial.failure for trial in trials} == {"diverged: loss is nan"}
    assert len(record.arrived) == len(trials)


def test_failures_among_successes_end_nothing():
    def fail(candidate: Candidate) -> dict[str, float]:
        if candidate.number:
            raise CandidateFailure("diverged", "again")
        return {"loss": 1.0}

    one = loop(ListRecord(), measure=fail, failures=3)
    assert len(one.run()) == 30


@pytest.mark.parametrize("schedule", [Schedule(8), Asynchronous(8)], ids=["batch", "async"])
def test_more_workers_than_architectures(schedule: Schedule):
    at = problem(AdditiveSpace(count=1, choices=3))
    record = ListRecord()
    small = loop(record, at=at, schedule=schedule, evaluator=SimulatedEvaluator(8))
    trials = small.run()
    assert sorted(trial.genotype for trial in trials) == [(0,), (1,), (2,)]
    assert small.stop is not None
    assert small.stop.by == "exhausted"
    again = loop(record, at=at, schedule=schedule, evaluator=SimulatedEvaluator(8))
    assert again.run() == trials
    assert again.stop == small.stop


@pytest.mark.parametrize(
    "wrong",
    [{"wall_clock_s": 0}, {"worker_s": -1.0}, {"gain_percent_per_hour": math.nan}, {"failures": 0}],
)
def test_a_limit_that_is_no_limit_is_refused(wrong: dict[str, float]):
    [name] = wrong
    with pytest.raises(ConfigError, match=rf"search\.stop\.{name}: got"):
        StopSettings(**wrong)  # type: ignore[arg-type]
