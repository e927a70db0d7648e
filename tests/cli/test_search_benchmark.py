from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from nas_command import Ended

Here = Callable[..., Ended]
BRIEF = ("--devices", "pixel2", "gold_6240", "--seeds", "2", "--evaluations", "50", "--jobs", "1")


def test_methods_are_compared_and_added_later(here: Here, tmp_path: Path) -> None:
    ended = here("benchmark", "search", "random_search", *BRIEF, "--out", "there")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("random_search on cifar10") == 4
    ended = here("benchmark", "search", "random_search", "nsga2", *BRIEF, "--out", "there")
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


def test_wrong_names_are_refused(here: Here) -> None:
    ended = here("benchmark", "search", "crystal_ball")
    assert ended.returncode == 2
    assert "random_search" in ended.stderr
    ended = here("benchmark", "search", "--tasks", "mnist")
    assert ended.returncode == 2
    assert "imagenet16" in ended.stderr
    ended = here("benchmark", "search", "--tasks", "cifar10_3", "--devices", "pixel2")
    assert ended.returncode == 2
    assert "two or more" in ended.stderr
    ended = here("benchmark", "search", "nsga2", "--devices", "abacus")
    assert ended.returncode == 2
    assert "got 'abacus'" in ended.stderr
