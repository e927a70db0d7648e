"""Candidates begin with the weights of the most similar architecture that has been told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from additive import loss, problem
from simulated import SimulatedEvaluator
from test_loop import ListRecord

from nas.core.trial import Candidate, Evaluation, Trial
from nas.evaluation.checkpoints import CheckpointFolder, ContinuingEvaluator
from nas.results.hypervolume import non_dominated
from nas.search import algorithms
from nas.search.loop import SearchLoop
from nas.search.parents import LAST, PARENT, Parents
from nas.search.schedule import Asynchronous, Schedule
from nas.search.stopping import Stopping, StopSettings

EVALUATIONS = 60


def inherited_loss(candidate: Candidate) -> dict[str, float]:
    """Return a loss that depends on the whole line of parents."""
    parent = 1.0 if candidate.parent is None else float(candidate.parent.weights)
    return {"loss": loss(candidate.genotype) + 0.1 * parent}


class Training(SimulatedEvaluator):
    """Hands out the loss as the weights."""

    def _evaluation(self, candidate: Candidate) -> Evaluation:
        evaluation = super()._evaluation(candidate)
        assert evaluation.outcome is not None
        weights = repr(evaluation.outcome.metrics["loss"]).encode()
        return replace(evaluation, outcome=replace(evaluation.outcome, weights=weights))


def search(
    folder: Path,
    record: ListRecord | None = None,
    *,
    workers: int = 2,
    evaluations: int = EVALUATIONS,
    schedule: Schedule | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Trial]:
    at, weights = problem(), CheckpointFolder(folder / "parents")
    training = Training(workers, metrics=inherited_loss)
    return SearchLoop(
        problem=at,
        algorithm=algorithms.get("nsga2", population=6).start(at, 1),
        evaluator=ContinuingEvaluator(training, CheckpointFolder(folder / "checkpoints"), weights),
        ledger=record or ListRecord(),
        describe=lambda _, genotypes: [{} for _ in genotypes],
        on_trial=lambda trial, history: None,
        study_seed=7,
        stopping=Stopping(evaluations, StopSettings()),
        schedule=schedule or Schedule(5),
        parents=Parents(at, weights, say),
    ).run()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return search(tmp_path_factory.mktemp("expected"))


def parent_of(trial: Trial) -> int | None:
    return int(trial.facts[PARENT]) if PARENT in trial.facts else None


def test_the_parent_is_the_most_similar_of_front_and_last_that_were_told(expected):
    space = problem().space
    for trial in expected:
        told = expected[: max(trial.number - 5 + 1, 0)]
        if not told:
            assert parent_of(trial) is None
            continue
        points = [list(t.values.values()) for t in told]
        front = [t for t, inside in zip(told, non_dominated(points), strict=True) if inside]
        numbers = sorted({t.number for t in [*front, *told[-LAST:]]})

        def distance(number: int, own: Trial = trial) -> int:
            genotypes = space.matrix([own.genotype, expected[number].genotype])
            active = space.actives(genotypes)
            return int(((genotypes[0] != genotypes[1]) & active.any(0)).sum())

        assert parent_of(trial) == min(numbers, key=distance)


@pytest.mark.parametrize("workers", [1, 3, 5])
def test_the_number_of_workers_changes_nothing(expected, tmp_path, workers):
    assert search(tmp_path, workers=workers) == expected


@pytest.mark.parametrize("ended", [3, 17, 30, 44])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(expected, tmp_path, ended):
    class Killed(ListRecord):
        def append(self, *trials: Trial) -> None:
            super().append(*trials)
            if len(self.arrived) >= ended:
                raise KeyboardInterrupt

    record, said = Killed(), []
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, record)
    assert search(tmp_path, ListRecord(record.arrived), workers=3, say=said.append) == expected
    assert not said


def test_a_search_that_has_ended_goes_on_with_more_evaluations(expected, tmp_path):
    record, said = ListRecord(), []
    search(tmp_path, record, evaluations=25)
    assert search(tmp_path, record, say=said.append) == expected
    assert not said


def test_few_weights_are_kept(expected, tmp_path):
    search(tmp_path)
    kept = len(list((tmp_path / "parents").iterdir()))
    points = np.array([list(t.values.values()) for t in expected])
    assert 0 < kept <= LAST + 2 * 5 + non_dominated(points).sum() < EVALUATIONS


def test_lost_weights_are_told_and_the_training_begins_anew(tmp_path):
    record, said = ListRecord(), []
    search(tmp_path, record, evaluations=20)
    for file in (tmp_path / "parents").iterdir():
        file.unlink()
    trials = search(tmp_path, record, evaluations=21, say=said.append)
    assert len(said) == 1
    assert parent_of(trials[20]) is None


def test_an_asynchronous_search_has_parents(tmp_path):
    trials = search(tmp_path, schedule=Asynchronous(3), workers=3)
    assert sum(parent_of(trial) is not None for trial in trials) > EVALUATIONS / 2
