"""A board that is lost during a study costs the study nothing that was finished."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from nas_command import SMALL, Nas, number_of_trials, wait_until

from nas.results.study import StudyResults

sys.path.append(str(Path(__file__).parent.parent / "devices"))
from agent_process import AgentProcess

pytestmark = pytest.mark.slow


def test_a_study_goes_on_where_it_lost_its_board(tmp_path: Path) -> None:
    nas, folder = Nas(tmp_path), tmp_path / "runs" / "small"
    with AgentProcess(tmp_path) as agent:
        search = (
            "search",
            *(setting.replace("device.", "device.target.") for setting in SMALL),
            "search.evaluations=3",
            "device=remote",
            f"device.address={agent.address}",
            f"device.token_file={tmp_path / 'token'}",
            "device.retry_seconds=1",
        )
        with nas.started(*search) as process:
            wait_until(lambda: number_of_trials(folder) >= 1)
            agent.kill()
            _, errors = process.communicate(timeout=200)
        assert process.returncode == 2
        assert errors.count("\n") == 1
        assert errors.startswith(f"nas: {agent.address}: no answer to PUT ([Errno 111] Connection")
        assert errors.endswith("kept, run the same command again to go on\n")
        trained = sorted(folder.glob("finalised/*/training.json"))
        times = [path.stat().st_mtime_ns for path in trained]
        assert trained
        trials = StudyResults(folder).trials()
        assert len(trials) == 3
        # Moved to another place it is the same device.
        agent.start(0)
        again = nas(*search, f"device.address={agent.address}")
        assert again.returncode == 0, again.stderr
    study = StudyResults(folder)
    assert study.status == "finalised"
    assert study.record["device"]["target"]["name"] == "cpu"
    assert list(study.trials()["arch_id"]) == list(trials["arch_id"])
    assert [path.stat().st_mtime_ns for path in trained] == times
    for path in trained:
        measured = json.loads(path.with_name("measurement.json").read_text())
        assert measured["device"]["name"] == "cpu"
    token = (tmp_path / "token").read_text().strip()
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if token.encode() in path.read_bytes()]
