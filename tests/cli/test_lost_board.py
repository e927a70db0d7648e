"""A board that is lost during a study costs the study nothing that was finished."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from nas_command import SMALL, Nas, number_of_trials, wait_until

from nas.results.study import StudyResults

sys.path.append(str(Path(__file__).parent.parent / "devices"))
from ssh_server import SshServer

pytestmark = pytest.mark.slow


def test_a_study_goes_on_where_it_lost_its_board(tmp_path: Path) -> None:
    nas, folder = Nas(tmp_path), tmp_path / "runs" / "small"
    (tmp_path / "board").mkdir()
    with SshServer(tmp_path / "board") as board:
        reached = [f"device.{name}='{value}'" for name, value in board.settings.items()]
        search = ("search", *SMALL, "search.evaluations=3", "device=remote", *reached)
        with nas.started(*search) as process:
            wait_until(lambda: number_of_trials(folder) >= 1)
            board.stop()
            _, errors = process.communicate(timeout=200)
        assert process.returncode == 2
        assert errors.count("\n") == 1
        assert "ssh -F none" in errors
        assert errors.endswith("kept, run the same command again to go on\n")
        trained = sorted(folder.glob("finalised/*/network.json"))
        times = [path.stat().st_mtime_ns for path in trained]
        assert trained
        trials = StudyResults(folder).trials()
        assert len(trials) == 3
        board.start()
        # Reached in another way it is the same device.
        again = nas(*search, f"device.command='{board.settings['command']} -q'")
        assert again.returncode == 0, again.stderr
    study = StudyResults(folder)
    assert study.status == "finalised"
    assert list(study.trials()["arch_id"]) == list(trials["arch_id"])
    assert [path.stat().st_mtime_ns for path in trained] == times
    for path in trained:
        measured = json.loads(path.with_name("measurement.json").read_text())
        assert measured["device"]["name"] == "remote"
