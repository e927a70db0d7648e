"""The time of a study: what a budget means, and that plans keep it."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time
from collections.abc import Sequence
from itertools import product

import pytest

from latency_predictors import LEAST_SAMPLES
from nas.core.errors import ConfigError
from nas.core.trial import Trial
from nas.study.budget import (
    CALIBRATION_SHARE,
    ENDING_S,
    LEAST_CANDIDATES,
    VERIFICATION_SHARE,
    Speeds,
    TimePlan,
    planned,
)
from nas.study.composition import compose
from nas.study.planner import Planner
from nas.study.preview import nothing_complete_line
from nas.study.reading import read
from nas.study.settings import EVALUATIONS, StudySettings
from nas.training.job import TrainingJob

UNIT_S = {"s": 1, "min": 60, "h": 3600}


@functools.cache
def settings(**changes: object) -> StudySettings:
    return read(compose(settings={"name": "x", **changes}))


def speeds(candidate_s: float | None = 40.0, final_ratio: float = 3.0, workers: int = 2) -> Speeds:
    return Speeds(
        candidate_s=candidate_s, final_ratio=final_ratio, sample_s=2.5, workers=workers, how="said"
    )


def trial(number: int, seconds: float, ended_s: float = 0.0, fidelity: float = 1.0) -> Trial:
    return Trial(
        number=number,
        genotype=(number,),
        arch_id=str(number),
        seed=0,
        fidelity=fidelity,
        seconds=seconds,
        ended_s=ended_s,
    )


@pytest.mark.parametrize(
    ("text", "cores", "seconds"),
    [
        ("90s", 2, 90),
        ("15min", 2, 900),
        ("1.5h", 2, 5400),
        ("2 h", 8, 7200),
        ("8core-h", 2, 14400),
        ("0.5core-h", 4, 450),
    ],
)
def test_a_budget_is_a_time_or_core_hours(text: str, cores: int, seconds: float) -> None:
    assert settings(budget=text).budget_s(cores) == seconds


@pytest.mark.parametrize(
    "text", ["15", "min", "-5min", "0min", "nan s", "15 parsecs", "1e9h", "9" * 400 + "h"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"budget: got .* expected a time such as .*15min"):
        settings(budget=text)


def test_a_budget_alone_limits_the_search_unless_a_number_is_given() -> None:
    assert settings().evaluations == EVALUATIONS
    assert settings(budget="1h").evaluations == math.inf
    assert settings(budget="1h", **{"search.evaluations": 20}).evaluations == 20
    assert settings(budget="1h").limits != settings(budget="2h").limits


def test_a_simulated_search_has_no_budget() -> None:
    with pytest.raises(ConfigError, match=r"budget: got '1h'.*simulated"):
        read(compose(["experiment=nasbench201"], settings={"name": "x", "budget": "1h"}))


def test_a_verification_trains_the_largest_first_on_all_workers() -> None:
    at = speeds()
    each_s = at.verification_s([1e-9])
    # By hand: 9 on the one worker, 5 + 4 + 2 on the other.
    assert at.verification_s([2, 5, 9, 4]) == pytest.approx(11 + 4 * each_s)
    assert at.verification_s([]) == 0
    room_s = 11 + 4 * each_s
    assert at.fitting([2, 5, 9, 4], room_s) == 4
    assert at.fitting([2, 5, 9, 4], room_s - 0.1) == 3
    assert at.fitting([2, 5, 9, 4], -1.0) == 1, "the first one is verified in any case"
    assert at.fitting([], room_s) == 0


def test_a_refit_takes_its_time_as_well() -> None:
    at, refitting = speeds(), dataclasses.replace(speeds(), refit_ratio=1.5)
    each_s = at.verification_s([1e-9])
    assert refitting.verification_s([10.0]) == pytest.approx(10 + 15 + 2 * each_s)
    # Of many networks, those that three names stand for.
    expected_s = at.verification_s([10.0] * 8) + 2 * 15 + 3 * each_s
    assert refitting.verification_s([10.0] * 8) == pytest.approx(expected_s)


def test_a_plan_without_a_budget_has_all_stages() -> None:
    plan = planned(settings(), speeds(), [], calibrated=False)
    assert plan.calibration_s == plan.samples * 2.5 == 100
    assert (plan.candidates, plan.search_s) == (EVALUATIONS, EVALUATIONS * 40 / 2)
    assert plan.members == 8
    assert plan.verification_s >= 8 * 120 / 2
    limited = settings(**{"search.stop.wall_clock_s": 200.0, "finalise.limit": 0})
    plan = planned(limited, speeds(), [], calibrated=True)
    assert (plan.samples, plan.candidates, plan.search_s) == (0, 10, 200)
    assert (plan.members, plan.verification_s) == (0, 0)


BUDGETS = list(product(["15min", "1h", "8h"], [1.0, 40.0, 300.0], [0.5, 3.0, 10.0], [1, 2, 16]))


@pytest.mark.parametrize(("text", "candidate_s", "ratio", "workers"), BUDGETS)
def test_a_plan_keeps_its_budget(text: str, candidate_s: float, ratio: float, workers: int) -> None:
    """Either it fits, or the least budget is named, and that one fits."""
    spent_s, at = 20.0, speeds(candidate_s, ratio, workers)

    def plan_of(budget: str) -> tuple[TimePlan, float]:
        of = settings(budget=budget)
        budget_s = of.budget_s(1)
        assert budget_s is not None
        plan = planned(of, at, [], calibrated=False, budget_s=budget_s, spent_s=spent_s)
        return plan, budget_s

    try:
        plan, budget_s = plan_of(text)
    except ConfigError as error:
        least = re.search(r"expected at least ([\d.]+ (?:s|min|h)):.*recipe.epochs", str(error))
        assert least is not None
        plan, budget_s = plan_of(least[1])
    total_s = plan.calibration_s + plan.search_s + plan.verification_s
    assert total_s <= budget_s - ENDING_S - spent_s + 1e-6
    assert total_s == pytest.approx(budget_s - ENDING_S - spent_s)
    least_s = LEAST_SAMPLES * at.sample_s
    assert plan.calibration_s <= max(CALIBRATION_SHARE * budget_s, least_s)
    assert 1 <= plan.members <= 8
    assert plan.members == 1 or plan.verification_s <= VERIFICATION_SHARE * budget_s
    assert plan.candidates is not None
    assert plan.candidates >= min(LEAST_CANDIDATES, workers) * (1 - 1e-9)


def test_a_study_that_goes_on_is_never_refused() -> None:
    of = settings(budget="15min")
    plan = planned(
        of, speeds(), [trial(0, 40.0)], calibrated=True, budget_s=900.0, spent_s=899.0, begins=False
    )
    assert plan.search_s == 0
    assert plan.members == 1


def test_a_plan_of_unknown_speed_keeps_its_budget() -> None:
    of = settings(budget="15min")
    plan = planned(of, speeds(None), [], calibrated=False, budget_s=900.0)
    assert plan.candidates is None
    total_s = plan.calibration_s + plan.search_s + plan.verification_s
    assert total_s == pytest.approx(900 - ENDING_S)
    assert "as many candidates as fit" in plan.line(speeds(None), 900.0)


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Of a study whose candidates take 20 s, and whose front is that of the last two trials."""

    def front(trials: Sequence[Trial], most: int) -> list[str]:
        return [trial.arch_id for trial in trials[-2:]]

    monkeypatch.setattr(TrainingJob, "__post_init__", lambda job: None)
    monkeypatch.setattr("nas.study.planner.speeds_of", lambda *_: speeds(20.0))
    job = TrainingJob(
        space=None,
        train=None,
        held_out=None,
        preprocessing=None,
        recipe=None,  # type: ignore[arg-type]
    )
    of = settings(budget="15min", **{"evaluation.workers": 2})
    planner = Planner(settings=of, job=job, say=lambda line: None, started=time.monotonic())
    assert planner.announce([], [], calibrated=True) is not None
    planner.begin_search(front, [], ())
    return planner


def test_a_search_ends_when_its_front_can_just_be_verified(planner: Planner) -> None:
    early = [trial(i, 20.0, 10.0 * i) for i in range(20)]
    # Where the front is hardly known, the mean stands for as many as fit into a third.
    assert 600 - 60 - ENDING_S < planner.search_ends_s(early) <= 900
    late = [*early, trial(20, 60.0, 400.0), trial(21, 90.0, 410.0)]
    at = speeds()
    expected_s = 900 - ENDING_S - at.verification_s([180.0, 270.0])
    assert planner.search_ends_s(late) == pytest.approx(expected_s, abs=1)
    # It is a function of the trials, not of when it is asked.
    assert planner.search_ends_s(late) == planner.search_ends_s(late)
    # What is trained in parts took the sum of them.
    parts = [*late[:-1], trial(21, 30.0, 405.0, 0.3), trial(21, 60.0, 410.0)]
    assert planner.search_ends_s([parts[0], parts[-2], *parts]) <= expected_s + 1


def test_members_that_are_verified_take_no_time_of_a_larger_budget(planner: Planner) -> None:
    trials = [*(trial(i, 20.0, 20.0 * i) for i in range(20)), trial(20, 90.0, 410.0)]
    before_s = planner.search_ends_s(trials)
    last_two = [trial.arch_id for trial in trials[-2:]]
    planner.begin_search(lambda trials, most: last_two, [], [trials[-1].arch_id])
    assert planner.search_ends_s(trials) > before_s + 100


def test_a_change_of_the_plan_is_said_once(planner: Planner) -> None:
    said: list[str] = []
    planner.say = said.append
    for number in range(40):
        planner.note(trial(number, 20.0, 5.0 * number))
    assert not said
    for number in range(40, 80):
        planner.note(trial(number, 20.0, 301.0 + number))
    assert 1 <= len(said) <= 2
    planner.note(trial(3, 500.0, 900.0))
    assert len(said) <= 2, "a trial of an earlier run changes nothing"


def test_as_many_members_are_verified_as_there_is_time_for(planner: Planner) -> None:
    trials = [trial(i, 20.0) for i in range(8)]
    names = [trial.arch_id for trial in trials]
    planner.started -= 650.0
    left_s = 900 - ENDING_S - planner.spent_s
    number = planner.verified(trials, names, 1)
    assert 1 < number < 8
    assert speeds(20.0).verification_s([60.0] * number) <= left_s
    # They have taken no time at all, so that there is room for the others, and then for none.
    assert planner.verified(trials, names[number:], 0) == 8 - number
    planner.started -= 650.0
    assert planner.verified(trials, names, 0) == 0
    assert planner.verified(trials, names, 1) == 1, "one is verified in any case"


def test_time_of_earlier_runs_counts(planner: Planner) -> None:
    planner.outside_s = 100.0
    recorded = [trial(0, 20.0, 200.0)]
    before_s = planner.begin_search(lambda trials, most: [], recorded, ())
    assert before_s == pytest.approx(100, abs=5)
    assert planner.spent_s == pytest.approx(300, abs=5)


@pytest.mark.parametrize(
    ("by", "setting"), [("budget", "raise budget"), ("wall_clock_s", "raise search.stop")]
)
def test_a_search_that_had_no_time_blames_no_limit(by: str, setting: str) -> None:
    line = nothing_complete_line([], by)
    assert setting in line
    assert "breaks a limit" not in line
