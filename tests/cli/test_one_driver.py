"""A study has one ledger and one process that writes it, wherever both are."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from nas_command import SMALL, Ended, Nas

from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

Here = Callable[..., Ended]
SEARCH = (*SMALL, "search.objectives=[error,params_m]", "evaluation.workers=1", "finalise.limit=0")


def test_of_two_searches_on_one_ledger_one_is_refused(nas: Nas) -> None:
    url = sqlite_url(nas.folder / "shared.db")
    command = ("search", *SEARCH, "search.evaluations=3", f"ledger.url={url}")
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(nas.started(*command, f"runs={n}")) for n in ("one", "two")]
        errors = [process.communicate(timeout=250)[1] for process in both]
        ended = [process.returncode for process in both]
    assert sorted(ended) == [0, 2], errors
    winner = ("one", "two")[ended.index(0)]
    refusal = errors[ended.index(2)]
    assert refusal.count("\n") == 1
    assert str(nas.folder / winner / "small") in refusal
    trials = Ledger.load(url, "small").trials()
    assert [trial.number for trial in trials] == [0, 1, 2]


def test_a_study_and_its_ledger_stay_together(here: Here, tmp_path: Path) -> None:
    command = ("search", *SEARCH, "search.evaluations=2")
    folder, renamed = tmp_path / "runs" / "small", tmp_path / "runs" / "renamed"
    assert here(*command).returncode == 0
    before = StudyResults(folder).trials()
    shutil.copy(folder / "ledger.db", tmp_path)

    # A renamed folder goes on, with all its trials.
    folder.rename(renamed)
    ended = here(*command[:-1], "search.evaluations=3", "name=renamed")
    assert ended.returncode == 0, ended.stderr
    assert "pareto renamed" in ended.stdout
    after = StudyResults(renamed).trials()
    assert len(after) == 3
    assert after["seconds"].tolist()[:2] == before["seconds"].tolist()

    # A study whose ledger is gone does not begin anew.
    (renamed / "ledger.db").unlink()
    for evaluations in (3, 4):
        refused = here(*command[:-1], f"search.evaluations={evaluations}", "name=renamed")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert str(renamed / "ledger.db") in refused.stderr
        assert not (renamed / "ledger.db").exists()
    shutil.copy(tmp_path / "ledger.db", renamed)
    assert here(*command[:-1], "search.evaluations=3", "name=renamed").returncode == 0
    assert len(StudyResults(renamed).trials()) == 3
