"""A search on rungs: what is told to whom, what it costs, and that it can be stopped anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from additive import AdditiveSpace, problem
from simulated import SimulatedEvaluator, noisy_loss, uneven_s
from test_loop import ListRecord

from nas.core.errors import LedgerError
from nas.core.trial import Candidate, Trial, full_trainings
from nas.search import algorithms, fidelity
from nas.search.algorithms.baselines import RandomSearch
from nas.search.loop import SearchLoop
from nas.search.schedule import Asynchronous, Schedule
from nas.search.stopping import Stopping, StopSettings

BUDGET = 12
LADDERS = [name for name in fidelity.names() if name != "full"]


class Listening(RandomSearch):
    """Random search that notes what it is told."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.told: list[Trial] = []

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials


def half_learned(candidate: Candidate) -> Mapping[str, float]:
    return {"loss": noisy_loss(candidate)["loss"] + 1 - candidate.fidelity}


def loop(
    record: ListRecord, rule: str, schedule: Schedule | None = None, **changes: object
) -> SearchLoop:
    at = problem(AdditiveSpace())
    search = SearchLoop(
        problem=at,
        algorithm=algorithms.get("nsga2", population=4).start(at, 1),
        evaluator=SimulatedEvaluator(3, lambda c: c.fidelity * uneven_s(c), half_learned),
        ledger=record,
        describe=lambda _, genotypes: [{} for _ in genotypes],
        on_trial=lambda trial, history: None,
        study_seed=7,
        stopping=Stopping(BUDGET),
        schedule=schedule or Schedule(4),
        fidelity=fidelity.get(rule).start(at),
    )
    return replace(search, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", LADDERS)
def test_architectures_climb_rung_by_rung_within_the_budget(rule: str):
    trials = loop(ListRecord(), rule).run()
    climbs: dict[str, list[float]] = {}
    for trial in trials:
        climbs.setdefault(trial.arch_id, []).append(trial.fidelity)
    rungs = (0.1, 0.33, 1.0)
    for climb in climbs.values():
        # Each begins somewhere on the ladder and leaves no rung out.
        assert tuple(climb) in {rungs[i:j] for i in range(3) for j in range(i + 1, 4)}
    assert any(len(climb) == 3 for climb in climbs.values())
    assert BUDGET <= full_trainings(trials) < BUDGET + 1
    # An architecture keeps its seed: its training goes on.
    assert len({(trial.arch_id, trial.seed) for trial in trials}) == len(climbs)


@pytest.mark.parametrize("rule", LADDERS)
@pytest.mark.parametrize("mode", ["batch", "async"])
def test_stopping_anywhere_loses_nothing_and_repeats_nothing(rule: str, mode: str):
    def schedule() -> Schedule:
        return Schedule(4) if mode == "batch" else Asynchronous(3)

    record = ListRecord()
    expected = loop(record, rule, schedule()).run()
    for kept in range(0, len(record.arrived) + 1, 5):
        resumed = ListRecord(record.arrived[:kept], record.segments())
        search = loop(resumed, rule, schedule())
        trials = search.run()
        if mode == "batch":
            assert trials == expected
        assert len(resumed.arrived) == len({t.number for t in resumed.arrived}) == len(trials)
        assert resumed.arrived[:kept] == record.arrived[:kept]
        # What a finished search is started again with is its ledger, and nothing is left to do.
        again = loop(resumed, rule, schedule())
        assert again.run() == trials
        assert again.evaluator.evaluated == []


@pytest.mark.parametrize("rule", LADDERS)
@pytest.mark.parametrize("mode", ["batch", "async"])
def test_a_training_on_a_rung_is_cut_and_goes_on(rule: str, mode: str):
    def search(evaluations: float, **limits: float) -> SearchLoop:
        schedule = Schedule(4) if mode == "batch" else Asynchronous(3)
        stopping = Stopping(evaluations, StopSettings(**limits))
        return loop(record, rule, schedule, stopping=stopping)

    record = ListRecord()
    for limit_s in (7.0, 15.0, 30.0):
        trials = search(BUDGET, wall_clock_s=limit_s).run()
        assert any(trial.cut for trial in trials)
        # A rung is told of what was to be trained so far, and a front has full trainings only.
        assert {t.fidelity for t in trials if not t.cut} <= {0.1, 0.33, 1.0}
    # The last trainings are cut where little is left of the budget: more leaves all of them room.
    trials = search(BUDGET + 4).run()
    assert BUDGET + 4 <= full_trainings(trials) < BUDGET + 5
    reached = {t.arch_id: t.fidelity for t in trials}
    assert all(reached[t.arch_id] > t.fidelity for t in trials if t.cut)


def test_an_algorithm_hears_of_full_trainings_unless_it_asks_for_all():
    class Curious(Listening):
        multi_fidelity = True

    for kind, fidelities in ((Listening, {1.0}), (Curious, {0.1, 0.33, 1.0})):
        algorithm = kind(problem(AdditiveSpace()), 0)
        loop(ListRecord(), "mo_asha", algorithm=algorithm).run()
        assert {trial.fidelity for trial in algorithm.told} == fidelities


@pytest.mark.parametrize("rule", fidelity.names())
def test_a_space_smaller_than_the_budget_is_climbed_to_the_end(rule: str):
    at = problem(AdditiveSpace(count=2, choices=2))
    algorithm = algorithms.get("random_search").start(at, 0)
    trials = loop(ListRecord(), rule, problem=at, algorithm=algorithm).run()
    assert {trial.genotype for trial in trials} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert any(trial.full for trial in trials)


def test_another_ladder_is_refused():
    record = ListRecord()
    loop(record, "mo_asha").run()
    with pytest.raises(LedgerError, match=r"trial 0 is .* at fidelity 0.1, expected .* at 1;"):
        loop(record, "full").run()
