"""Studies that are limited by time, on real workers."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from nas_command import SMALL, Nas

from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

UNLIMITED = (*SMALL, "search.evaluations=null")


def test_a_limit_of_time_is_kept_and_what_it_cut_goes_on(nas: Nas) -> None:
    """Candidates take far longer than the limit leaves them."""
    search = ("search", *SMALL, "search.objectives=[error,params_m]", "finalise.limit=0")
    search = (*search, "evaluation.recipe.epochs=60")
    cut = nas(*search, "search.stop.wall_clock_s=20")
    study = StudyResults(nas.folder / "runs" / "small")
    trials = study.trials()
    assert study.record["stop"]["by"] == "wall_clock_s", cut.stdout + cut.stderr
    assert trials["ended_s"].max() < 20 + 5
    partial = trials[trials["fidelity"] < 1]
    assert 1 <= len(partial) <= 2
    checkpoints = study.path / "checkpoints"
    assert {file.name.partition("-")[0] for file in checkpoints.iterdir()} == set(
        partial["arch_id"]
    )
    ended = nas(*search, f"search.evaluations={len(trials)}")
    assert ended.returncode == 0, ended.stderr
    after = StudyResults(study.path).trials()
    assert after["arch_id"][: len(trials)].tolist() == trials["arch_id"].tolist()
    full = after[after["fidelity"] == 1]
    assert set(full["arch_id"]) == set(trials["arch_id"])
    assert full["arch_id"].is_unique
    assert not list(checkpoints.iterdir())


def test_a_study_keeps_its_budget_and_goes_on_with_a_larger_one(nas: Nas) -> None:
    search = ("search", *UNLIMITED, "evaluation.recipe.epochs=4", "finalise.recipe.epochs=8")
    for budget_s in (60, 100):
        began = time.monotonic()
        ended = nas(*search, f"budget={budget_s}s")
        took_s = time.monotonic() - began
        assert ended.returncode == 0, ended.stderr
        study = StudyResults(nas.folder / "runs" / "small")
        assert study.record["stop"]["by"] == "budget"
        assert study.status == "finalised"
        assert study.pareto()["verified"].all()
        assert len(study.pareto()) >= 1
        assert re.search(r"of a budget of .*: .* of search .*, .* of verification", ended.stdout)
        assert re.search(r"the study took .* of .*: .*search .* \(planned ", ended.stdout)
        # A machine that is busy starts Ray and imports PyTorch slowly, which nothing can cut.
        spent_s = study.record["seconds_outside_search"] + study.trials()["ended_s"].max()
        assert 0.5 * budget_s < spent_s < budget_s + 15
        assert took_s < budget_s + 40
    assert "nothing is left to do" in nas(*search, "budget=100s").stdout


def test_the_front_is_small_where_there_is_little_time(nas: Nas, tmp_path: Path) -> None:
    """It is refused before anything is measured if not one network can be verified."""
    search = ("search", *UNLIMITED, "finalise.recipe.epochs=4000", "budget=60s")
    refused = nas(*search)
    assert refused.returncode == 2
    assert re.fullmatch(r"nas: budget: got '60s', expected at least .*\n", refused.stderr)
    assert not (tmp_path / "runs").exists()
