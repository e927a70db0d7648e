"""What an evaluation prepares is made once for a study and reaches workers without a copy."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from prepared_evaluation import SIZE, PreparedSettings

from nas import evaluation
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Evaluation, Job

SETTINGS = PreparedSettings(workers=2)


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Workers look for modules where their environment says.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with SETTINGS.connected(None):
            yield


def no_training(recipe: Recipe) -> Job:
    raise AssertionError("nothing is trained")


def searched(folder: Path, first: int) -> list[Evaluation]:
    """Do what a run of a study does: prepare, then evaluate six candidates."""
    job = SETTINGS.prepare(SETTINGS.job(no_training), folder)
    evaluations: list[Evaluation] = []
    with closing(SETTINGS.start(job)) as evaluator:
        evaluator.submit(
            [
                Candidate(number=n, genotype=(n,), arch_id=str(n), seed=n)
                for n in range(first, first + 6)
            ]
        )
        while ended := evaluator.completed():
            evaluations += ended
    return sorted(evaluations, key=lambda one: one.candidate.number)


def test_what_is_prepared_is_made_once_and_read_by_all_jobs(tmp_path: Path):
    folder = tmp_path / "prepared"
    expected = np.random.default_rng(0).uniform(0, 100, SIZE)
    for first in (0, 6):  # the second time as a study that goes on
        for one in searched(folder, first):
            assert one.failure is None
            assert one.outcome is not None
            assert one.outcome.metrics == {"error": expected[one.candidate.seed], "copied": 0.0}
            assert len(pickle.dumps(one.candidate)) < 1000
    assert (folder / "made.txt").read_text() == "once\n"


def test_by_default_nothing_is_prepared(tmp_path: Path):
    def job(candidate: Candidate, deadline: float) -> None: ...

    for name in ("training", "tabular"):
        assert evaluation.get(name).prepare(job, tmp_path / "none") is job
    assert not (tmp_path / "none").exists()
