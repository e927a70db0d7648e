"""Answers of a table on simulated workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from nas import evaluation, tables
from nas.core.errors import CandidateFailure, ConfigError
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Evaluation, Job, Outcome
from nas.evaluation.tabular import SimulatedEvaluator

TABLE = tables.get("nasbench201")


def candidate(number: int, row: int = 0, fidelity: float = 1.0) -> Candidate:
    genotype = tuple(TABLE.genotypes[row].tolist())
    return Candidate(number=number, genotype=genotype, arch_id="a", seed=0, fidelity=fidelity)


def no_training(recipe: Recipe) -> Job:
    raise AssertionError("nothing is trained")


def takes(seconds: Mapping[int, float]) -> Callable[[Candidate, float], Outcome]:
    """Return a job that takes so many simulated seconds, by the candidate's number."""

    def job(candidate: Candidate, deadline: float) -> Outcome:
        return Outcome(metrics={"error": 10.0, "seconds": seconds[candidate.number]})

    return job


def numbers(evaluations: list[Evaluation]) -> list[int]:
    return [evaluation.candidate.number for evaluation in evaluations]


@pytest.mark.parametrize(("fidelity", "epochs"), [(1.0, 200), (0.06, 12)])
def test_a_candidate_gets_its_published_row(fidelity: float, epochs: int):
    settings = evaluation.get("tabular", dataset="cifar100")
    with settings.connected(None):
        evaluator = settings.start(settings.job(no_training))
        evaluator.submit([candidate(0, 6111, fidelity)])
        [ended] = evaluator.completed()
    assert ended.outcome is not None
    assert ended.outcome.metrics["error"] == TABLE.error("cifar100", epochs)[6111]
    assert ended.seconds == evaluator.clock() == TABLE.seconds("cifar100", epochs)[6111]


def test_candidates_end_in_the_order_of_simulated_time():
    evaluator = SimulatedEvaluator(takes({0: 5.0, 1: 2.0, 2: 1.0, 3: 1.0}), workers=2)
    assert evaluator.workers == 2
    assert evaluator.completed() == []
    evaluator.submit([candidate(i) for i in range(4)])
    # 1 ends at 2 s; its worker runs 2 until 3 s and 3 until 4 s, while 0 runs until 5 s.
    ended = [(numbers(evaluator.completed()), evaluator.clock()) for _ in range(4)]
    assert ended == [([1], 2.0), ([2], 3.0), ([3], 4.0), ([0], 5.0)]
    assert evaluator.completed() == []


def test_a_worker_that_was_idle_begins_when_it_is_given_work():
    evaluator = SimulatedEvaluator(takes({0: 4.0, 1: 1.0, 2: 3.0}), workers=2)
    evaluator.submit([candidate(0), candidate(1)])
    assert numbers(evaluator.completed()) == [1]
    evaluator.submit([candidate(2)])
    assert numbers(evaluator.completed()) == [0, 2]
    assert evaluator.clock() == 4.0


def test_a_failure_is_reported_and_takes_no_time():
    def job(candidate: Candidate, deadline: float) -> Outcome:
        raise CandidateFailure("diverged", "loss is nan")

    evaluator = SimulatedEvaluator(job, workers=1)
    evaluator.submit([candidate(0)])
    [ended] = evaluator.completed()
    assert (ended.failure, ended.seconds) == ("diverged: loss is nan", 0.0)


def test_it_says_what_its_numbers_are():
    for dataset, epochs, split in (
        ("cifar10", 200, "published validation error"),
        ("cifar100", 12, "published validation error"),
        ("imagenet16", 200, "published validation and test error"),
    ):
        published = evaluation.get("tabular", dataset=dataset, epochs=epochs).published
        assert published["error"] == f"{split} on {dataset} after {epochs} epochs"
        assert "simulated" in published["seconds"]
        assert "NAS-Bench-201" in published["source"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 50}, "evaluation.epochs: got 50, expected .*12, 200"),
        ({"dataset": "mnist"}, "data.dataset: got 'mnist'"),
        ({"workers": 0}, "evaluation.workers: got 0"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        evaluation.get("tabular", **given)


def test_errors_and_seconds_are_of_all_rows():
    job = evaluation.get("tabular").job(no_training)
    rows = np.arange(0, 15625, 997)
    found = [job(candidate(0, int(row)), 0.0).metrics["error"] for row in rows]
    np.testing.assert_array_equal(found, TABLE.error("cifar10", 200)[rows])
