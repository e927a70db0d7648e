"""Whatever stops a search, nothing finished is lost and nothing is done twice."""

from __future__ import annotations

import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from nas_command import SMALL, Nas, number_of_trials, wait_until, wait_until_gone

from nas.cli.main import main
from nas.cluster.connection import connected
from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

EVALUATIONS = 30
"""Enough for five interruptions, each of which may be late by some trials."""

# No objective needs a measurement, which would differ between two studies.
SEARCH = (
    *SMALL,
    "search.objectives=[error,params_m]",
    f"search.evaluations={EVALUATIONS}",
    "evaluation.workers=1",
    "finalise.limit=0",
)
SAME = ["number", "arch_id", "genotype", "seed", "error", "params_m"]


@dataclass
class Interrupted:
    """How a study was stopped, again and again, until it was finished.

    Attributes:
        folder: The study.
        whole: A study of the same settings that nothing stopped.
        ended: Exit status and standard error of every run that was stopped, by what stopped it.
        kept: The trials that each of these runs left behind.
    """

    folder: Path
    whole: Path
    ended: dict[str, tuple[int, str]]
    kept: dict[str, pd.DataFrame]


def fill_the_disk(pid: int, folder: Path) -> None:
    """Let files of the process grow no more: a write fails as it does on a full disk."""
    size = (folder / "ledger.db").stat().st_size
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    nas = Nas(tmp_path_factory.mktemp("interrupted"))
    folder = nas.folder / "runs" / "small"
    elsewhere = tmp_path_factory.mktemp("uninterrupted")
    state = Interrupted(folder, elsewhere / "runs" / "small", {}, {})

    def stop(pid: int, how: str) -> None:
        if how == "full disk":
            fill_the_disk(pid, folder)
            return
        if how == "SIGTERM":
            os.kill(pid, signal.SIGTERM)
            return
        # Who presses Ctrl-C, which reaches the whole group, presses it again.
        how = how.removeprefix("group ")
        for _ in range(3 if how == "SIGINT" else 1):
            os.killpg(pid, getattr(signal, how))
            time.sleep(0.3)

    for how in ("SIGKILL", "SIGINT", "SIGTERM", "group SIGTERM", "full disk"):
        before = number_of_trials(folder)
        with nas.started("search", *SEARCH) as process:
            wait_until(lambda least=before + 2: number_of_trials(folder) >= least)
            family = psutil.Process(process.pid).children(recursive=True)
            stop(process.pid, how)
            _, errors = process.communicate(timeout=100)
            wait_until_gone(family)
        state.ended[how] = process.returncode, errors
        state.kept[how] = StudyResults(folder).trials()
    with connected(None):
        for start in (nas.folder, elsewhere):
            search(start)
    return state


def search(start: Path) -> None:
    """Run the search to its end in this process, on workers that are there already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(start)
        assert main(["search", *SEARCH]) == 0


def test_an_interrupted_study_equals_an_uninterrupted_one(interrupted: Interrupted) -> None:
    expected = StudyResults(interrupted.whole).trials()
    trials = StudyResults(interrupted.folder).trials()
    assert len(expected) == EVALUATIONS
    assert trials[SAME].equals(expected[SAME])


def test_no_trial_is_lost_or_repeated(interrupted: Interrupted) -> None:
    last = StudyResults(interrupted.folder).trials()
    assert number_of_trials(interrupted.folder) == len(last) == EVALUATIONS
    for kept in interrupted.kept.values():
        assert len(kept) >= 2
        # The seconds that a trial took would differ if it had been repeated.
        columns = [*SAME, "seconds"]
        same = last[last["number"].isin(kept["number"])].reset_index(drop=True)
        assert same[columns].equals(kept[columns])


@pytest.mark.parametrize(
    ("how", "expected"), [("SIGINT", 130), ("SIGTERM", 143), ("group SIGTERM", 143)]
)
def test_an_interruption_ends_with_one_line(
    interrupted: Interrupted, how: str, expected: int
) -> None:
    status, errors = interrupted.ended[how]
    assert status == expected
    assert errors == "nas: interrupted; what was finished is kept, run the command again\n"


def test_a_full_disk_ends_with_one_line(interrupted: Interrupted) -> None:
    status, errors = interrupted.ended["full disk"]
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.startswith("nas: ledger sqlite:///")
    assert "free disk space" in errors
