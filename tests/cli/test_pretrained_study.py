"""A study whose networks begin with the weights that a former study has exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from nas_command import SMALL, Ended

from nas.results.study import StudyResults

Here = Callable[..., Ended]


@pytest.mark.slow
def test_a_study_begins_with_an_export(here: Here, tmp_path: Path) -> None:
    first = here("search", *SMALL)
    assert first.returncode == 0, first.stderr
    exported = here("export", "small", "--pick", "best", "--out", "out")
    assert exported.returncode == 0, exported.stderr
    inits = ("evaluation.recipe.init=out", "finalise.recipe.init=out")
    command = ("search", *SMALL, "name=second", *inits)
    second = here(*command)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("recipe.init=out: random networks inherit") == 2
    before, after = (StudyResults(tmp_path / "runs" / name) for name in ("small", "second"))
    same = before.trials().merge(after.trials(), on="arch_id", suffixes=("", "_begun"))
    assert len(same) > 0
    # One epoch from trained weights is better than one from initial weights.
    assert same["error_begun"].mean() < same["error"].mean()
    arch_id = after.pick("best")["arch_id"]
    facts = json.loads((after.path / "finalised" / arch_id / "network.json").read_text())
    record = json.loads((tmp_path / "out" / "architecture.json").read_text())
    assert facts["provenance"]["pretrained_weights"]["folder"] == "out"
    assert record["arch_id"] == before.pick("best")["arch_id"]
    # The study does not go on with other weights.
    shutil.copy(
        after.path / "finalised" / arch_id / "weights.safetensors",
        tmp_path / "out" / "model.safetensors",
    )
    changed = here(*command, "search.evaluations=9")
    assert changed.returncode != 0
    assert changed.stderr.count("\n") == 1
    gone = here("search", *SMALL, "name=third", "evaluation.recipe.init=nowhere")
    assert gone.returncode != 0
    assert "evaluation.recipe.init" in gone.stderr
    assert "nowhere" in gone.stderr
    assert gone.stderr.count("\n") == 1
    assert not (tmp_path / "runs" / "third").exists()


@pytest.mark.slow
def test_candidates_inherit_and_the_number_of_workers_changes_nothing(
    here: Here, tmp_path: Path
) -> None:
    inherit = ("evaluation.inherit=true", "finalise.limit=1")
    for workers in (1, 2):
        own = (f"name=workers{workers}", f"evaluation.workers={workers}")
        ended = here("search", *SMALL, *inherit, *own)
        assert ended.returncode == 0, ended.stderr
    one, two = (StudyResults(tmp_path / "runs" / f"workers{n}").trials() for n in (1, 2))
    same = ["number", "arch_id", "error", "parent"]
    pd.testing.assert_frame_equal(one[same], two[same])
    assert one["parent"].notna().sum() == len(one) - 2  # search.lookahead
    refused = here("search", *SMALL, *inherit, "name=rungs", "fidelity=mo_asha")
    assert refused.returncode != 0
    assert "evaluation.inherit" in refused.stderr
    assert refused.stderr.count("\n") == 1
