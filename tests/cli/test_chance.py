"""A search that learns nothing says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from nas_command import SMALL, Ended

from nas import data

Here = Callable[..., Ended]

UNTRAINED = (
    *SMALL,
    "search.reference_point=null",
    "search.objectives=[error,params_m]",
    "search.evaluations=9",
    "evaluation.recipe.optimizer.learning_rate=1e-6",
    "finalise.limit=0",
)


def test_a_search_at_chance_says_so_as_soon_as_it_can_and_at_its_end(here: Here, tmp_path: Path):
    ended = here("search", *UNTRAINED)
    assert ended.returncode == 0, ended.stderr
    lines = (ended.stdout + ended.stderr).splitlines()
    said = [i for i, line in enumerate(lines) if "better than guessing" in line]
    [eighth] = [i for i, line in enumerate(lines) if "8/9 " in line]
    assert said[0] == eighth + 1
    assert len(said) == 2
    assert all("evaluation.recipe.epochs" in lines[i] for i in said)
    record = json.loads((tmp_path / "runs" / "small" / "study.json").read_text())
    guess = data.get("digits").search_splits().trivial()["error"]
    assert record["reference_point"]["error"] == guess
