from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "search_efficiency" / "run.py"
BRIEF = ("--devices", "pixel2", "gold_6240", "--seeds", "2", "--evaluations", "50", "--jobs", "1")


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
    assert runs["hypervolume_50"].between(0, 1).all()
    assert runs["hypervolume_100"].isna().all()
    summary = pd.read_csv(there / "summary.csv")
    assert set(summary["task"]) == {"cifar10"}
    assert (there / "hypervolume.png").stat().st_size > 10_000
    assert "| nsga2 |" in (there / "tables.md").read_text("utf-8")


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    for arguments, expected in (
        (("crystal_ball",), "random_search"),
        (("--tasks", "mnist"), "imagenet16"),
        (("--tasks", "cifar10_3", "--devices", "pixel2"), "two or more"),
        (("nsga2", "--devices", "abacus"), "abacus"),
    ):
        ended = run(tmp_path, *arguments)
        assert ended.returncode == 1
        assert expected in ended.stderr
