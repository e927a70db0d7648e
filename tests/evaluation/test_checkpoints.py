from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from nas.core.trial import Candidate, Evaluation, Evaluator, Outcome
from nas.evaluation.checkpoints import CheckpointFolder, ContinuingEvaluator

CUT = 99
"""Seed of a candidate that is cut halfway."""


class Echo(Evaluator):
    """Says from which checkpoint a candidate went on, and leaves one of its own."""

    def __init__(self) -> None:
        self._queued: list[Candidate] = []

    @property
    def workers(self) -> int:
        return 1

    def submit(self, candidates: Sequence[Candidate]) -> None:
        self._queued.extend(candidates)

    def completed(self) -> list[Evaluation]:
        ended, self._queued = self._queued, []
        return [self._evaluation(candidate) for candidate in ended]

    def close(self) -> None:
        self._queued.clear()

    def _evaluation(self, candidate: Candidate) -> Evaluation:
        if candidate.seed < 0:
            return Evaluation(candidate=candidate, seconds=0, failure="crashed: so")
        came = float((candidate.checkpoint or b"0").decode())
        cut_at = (came + candidate.fidelity) / 2 if candidate.seed == CUT else None
        left = cut_at or candidate.fidelity
        checkpoint = None if left == 1 else str(left).encode()
        outcome = Outcome(metrics={"from": came}, checkpoint=checkpoint, cut_at=cut_at)
        return Evaluation(candidate=candidate, seconds=1, outcome=outcome)


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def evaluate(folder: CheckpointFolder, fidelity: float, seed: int = 0) -> Evaluation:
    """Evaluate with an evaluator of its own, as after an interruption."""
    evaluator = ContinuingEvaluator(
        Echo(), folder, CheckpointFolder(folder.path.with_name("parents"))
    )
    candidate = Candidate(number=0, genotype=(), arch_id="a", seed=seed, fidelity=fidelity)
    evaluator.submit([candidate])
    (evaluation,) = evaluator.completed()
    assert evaluation.candidate == candidate
    assert evaluation.outcome is None or evaluation.outcome.checkpoint is None
    return evaluation


def came_from(evaluation: Evaluation) -> float:
    assert evaluation.outcome is not None
    return evaluation.outcome.metrics["from"]


def test_a_candidate_goes_on_from_its_latest_checkpoint(folder: CheckpointFolder):
    assert [came_from(evaluate(folder, f)) for f in (0.1, 0.33, 1.0)] == [0, 0.1, 0.33]


def test_of_an_architecture_one_checkpoint_is_kept_until_its_training_is_complete(
    folder: CheckpointFolder,
):
    for fidelity in (0.1, 0.33):
        evaluate(folder, fidelity)
        assert [file.name for file in folder.path.iterdir()] == [f"a-{fidelity}.safetensors"]
    evaluate(folder, 1.0)
    assert not list(folder.path.iterdir())


def test_what_failed_is_not_gone_on_with(folder: CheckpointFolder):
    evaluate(folder, 0.1)
    evaluate(folder, 0.33, seed=-1)
    assert not list(folder.path.iterdir())


def test_a_lost_checkpoint_means_training_from_the_start(folder: CheckpointFolder):
    evaluate(folder, 0.1)
    folder.discard("a")
    assert came_from(evaluate(folder, 0.33)) == 0


def test_a_checkpoint_beyond_what_is_asked_for_is_left_alone(folder: CheckpointFolder):
    evaluate(folder, 0.33)
    assert came_from(evaluate(folder, 0.1)) == 0


def test_a_candidate_that_was_not_recorded_goes_on_from_its_own_end(folder: CheckpointFolder):
    evaluate(folder, 0.33)
    assert came_from(evaluate(folder, 0.33)) == 0.33


def test_what_was_cut_goes_on_from_where_it_was_cut(folder: CheckpointFolder):
    for came, reached in [(0, 0.5), (0.5, 0.75)]:
        evaluation = evaluate(folder, 1.0, seed=CUT)
        assert came_from(evaluation) == came
        assert evaluation.outcome is not None
        assert evaluation.outcome.cut_at == reached
        assert [file.name for file in folder.path.iterdir()] == [f"a-{reached}.safetensors"]
    assert came_from(evaluate(folder, 1.0)) == 0.75


def test_checkpoints_are_kept_of_some(folder: CheckpointFolder):
    for arch_id in "abc":
        folder.keep(arch_id, 0.5, b"0.5")
    folder.retain(["b", "x"])
    assert [file.name for file in folder.path.iterdir()] == ["b-0.5.safetensors"]
    assert folder.latest("a", 1.0) is None
