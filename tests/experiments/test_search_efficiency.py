from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "search_efficiency" / "run.py"
COSTS = ("--tasks", "cifar10", "--costs", "pixel2", "gold_6240")
BRIEF = (*COSTS, "--seeds", "2", "--evaluations", "50", "--jobs", "1")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_methods_are_compared_and_added_later(tmp_path: Path) -> None:
    ended = run(tmp_path, "random_search", *BRIEF, "--out", "there")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("random_search on cifar10") == 4
    ended = run(tmp_path, "random_search", "nsga2", *BRIEF, "--out", "there")
    assert ended.returncode == 0, ended.stderr
    assert "random_search on cifar10" not in ended.stderr
    there = tmp_path / "there"
    runs = pd.read_csv(there / "runs.csv")
    assert sorted(runs["method"].unique()) == ["nsga2", "random_search"]
    assert len(runs) == 8
    assert runs["unclipped_50"].between(0, 1).all()
    assert runs["clipped_100"].isna().all()
    summary = pd.read_csv(there / "summary.csv")
    assert set(summary["task"]) == {"cifar10"}
    assert (there / "hypervolume.png").stat().st_size > 10_000
    assert (runs["cheapest_50"] >= 1).all()
    assert "| nsga2 |" in (there / "tables.md").read_text("utf-8")


def test_recorded_runs_are_those_of_the_first_benchmark(tmp_path: Path) -> None:
    """Runs of long ago are read, and scored by every measure, without being made again."""
    runs = SCRIPT.parent / "runs"
    (tmp_path / "runs").mkdir()
    line = (runs / "nsga2.jsonl").read_text("utf-8").splitlines()[0]
    (tmp_path / "runs" / "nsga2.jsonl").write_text(line + "\n", "utf-8")
    ended = run(tmp_path, "--report-only", "--seeds", "1", "--out", ".")
    assert ended.returncode == 0, ended.stderr
    [row] = pd.read_csv(tmp_path / "runs.csv").to_dict("records")
    run_of = ["method", "task", "costs", "seed"]
    was = pd.read_csv(SCRIPT.parent / "runs.csv").merge(pd.DataFrame([row])[run_of])
    for name in (
        "clipped_350",
        "unclipped_25",
        "unclipped_linear_100",
        "cheapest_200",
        "front_200",
    ):
        assert row[name] == pytest.approx(was[name].item(), rel=1e-4)
    assert row["unclipped_350"] < row["clipped_350"]


@pytest.mark.slow
def test_every_kind_of_task_is_searched(tmp_path: Path) -> None:
    names = ("macro", "macro_3", "accel", "accel_whole", "accel_tight")
    brief = ("--seeds", "1", "--evaluations", "25", "--jobs", "1", "--out", ".")
    ended = run(tmp_path, "random_search", "optuna_tpe", "--tasks", *names, *brief)
    assert ended.returncode == 0, ended.stderr
    runs = pd.read_csv(tmp_path / "runs.csv")
    of_random = runs[runs["method"] == "random_search"]
    assert sorted(of_random["task"].unique()) == sorted(names)
    assert len(of_random) == 2 * len(names)
    # Another tool is told no limit, so that it takes no part where there is one.
    assert set(runs.loc[runs["method"] == "optuna_tpe", "task"]) == {*names} - {"accel_tight"}
    for column in ("clipped_25", "unclipped_25", "clipped_linear_25", "unclipped_linear_25"):
        assert runs[column].between(0, 1).all()


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    for arguments, expected in (
        (("crystal_ball",), "random_search"),
        (("--tasks", "mnist"), "imagenet16"),
        (("--tasks", "cifar10_3", "--costs", "pixel2"), "two or more"),
        (("nsga2", "--costs", "abacus"), "abacus"),
    ):
        ended = run(tmp_path, *arguments)
        assert ended.returncode == 1
        assert expected in ended.stderr
