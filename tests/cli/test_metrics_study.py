"""A study of other metrics than the error, from its search to the export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nas_command import SMALL, Ended
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas import data
from nas.core.errors import ConfigError
from nas.results.hypervolume import non_dominated
from nas.results.study import StudyResults
from nas.study.composition import compose
from nas.study.reading import read

Here = Callable[..., Ended]

METRICS = (
    "search.objectives=[balanced_error,params_m]",
    "search.reference_point=null",
    "logging=tensorboard",
    'search.constraints=["worst_class_error <= 99.9", "macro_f1_error <= 99"]',
    "evaluation.recipe.epochs=8",
    "finalise.recipe.epochs=8",
)


@pytest.mark.slow
def test_metrics_are_objectives_and_limits_to_the_end(here: Here, tmp_path: Path) -> None:
    ended = here("search", *SMALL, *METRICS)
    assert ended.returncode == 0, ended.stderr
    assert "best balanced error" in ended.stdout
    study = StudyResults(tmp_path / "runs" / "small")
    guess = data.get("digits").search_splits().trivial()["balanced_error"]
    assert study.record["reference_point"]["balanced_error"] == guess
    trials, front = study.trials(), study.pareto()
    verified = trials[trials["verified"]]
    points = verified[verified["feasible"]][["balanced_error_final", "params_m"]]
    assert len(front) == non_dominated(points.to_numpy()).sum()
    kept = verified["worst_class_error_final"] <= 99.9
    assert (verified["feasible"] == kept & (verified["macro_f1_error_final"] <= 99)).all()
    best = study.pick("best")
    assert best["balanced_error_final"] == front["balanced_error_final"].min()
    runs = tmp_path / "runs" / "small" / "tensorboard"
    events = EventAccumulator(str(runs / "study")).Reload()
    assert len(events.Scalars("search/balanced_error")) == len(trials)
    [test_error] = events.Scalars(f"final_{best['arch_id']}/balanced_error_test")
    assert test_error.value == pytest.approx(best["balanced_error_test"])
    exported = here("export", "small", "--pick", "best", "--out", "out")
    assert exported.returncode == 0, exported.stderr
    details = json.loads((tmp_path / "out" / "test_details.json").read_text())
    matrix = np.array(details["confusion_matrix"])
    assert matrix.sum() == details["images"] == len(data.get("digits").test_split())
    error = 100 * (1 - matrix.trace() / matrix.sum())
    assert best["error_test"] == pytest.approx(error)
    recall = details["recall_percent"]
    assert best["worst_class_error_test"] == pytest.approx(100 - min(recall.values()))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    rows = [f"| {name} | {recall[name]:.2f} |" for name in recall]
    places = {name: card.index(row) for name, row in zip(recall, rows, strict=True)}
    in_card = sorted(recall, key=places.__getitem__)
    assert [recall[name] for name in in_card] == sorted(recall.values())
    # What was exported before may be replaced, with its details.
    assert here("export", "small", "--pick", "best", "--out", "out").returncode == 0


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("objectives", "search.objectives=[balanced_error]"),
        ("constraints", 'search.constraints=["worst_class_error <= 20"]'),
    ],
)
def test_a_metric_that_no_table_has_is_refused(section: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"search.{section}: got .*a table's only metric"):
        read(compose(["experiment=nasbench201", "search.reference_point=null", setting]))
