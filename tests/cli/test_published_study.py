"""A study whose numbers are a published table's, from the command to its front."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nas_command import Ended

from nas import tables
from nas.results.study import StudyResults

Here = Callable[..., Ended]
TABLE = tables.get("nasbench201")
SEARCH = ("experiment=nasbench201", "device.hardware=raspi4", "search.algorithm.initial=8")


def test_a_search_answers_from_the_table_and_says_so(here: Here, tmp_path: Path) -> None:
    ended = here("search", *SEARCH, "search.evaluations=20")
    assert ended.returncode == 0, ended.stderr
    assert "8 simulated workers" in ended.stdout
    assert "next: nas pareto nasbench201" in ended.stdout
    study = StudyResults(tmp_path / "runs" / "nasbench201")
    assert study.status == "searched"
    assert study.published["error"] == "published validation error on cifar10 after 200 epochs"
    assert "simulated" in study.published["seconds"]
    trials = study.trials()
    rows = TABLE.rows(trials["genotype"].tolist())
    for column, expected in (
        ("error", TABLE.error("cifar10", 200)),
        ("latency_ms_published", TABLE.latency_ms("raspi4")),
        ("seconds", TABLE.seconds("cifar10", 200)),
    ):
        np.testing.assert_array_equal(trials[column], expected[rows])
    # What is published stands in no column of what was predicted or measured.
    assert "latency_ms_predicted" not in trials
    assert trials["latency_ms_measured"].isna().all()
    assert not trials["verified"].any()
    shown = here("pareto", "nasbench201").stdout
    assert "Pareto front (published)" in shown
    assert "published latency on raspi4, measured" in " ".join(shown.split())
    front = json.loads(here("pareto", "nasbench201", "--json", "--where", "latency_ms < 50").stdout)
    assert all(row["latency_ms_published"] < 50 for row in front)
    refused = here("export", "nasbench201")
    assert refused.returncode == 2
    assert "expected one whose networks were trained" in refused.stderr


def found(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.drop(columns=["ended_s"], errors="ignore")


def test_a_search_goes_on_as_if_it_had_not_stopped(here: Here, tmp_path: Path) -> None:
    for settings in (["search.evaluations=9"], ["search.evaluations=24", "evaluation.workers=3"]):
        ended = here("search", *SEARCH, "name=parts", *settings)
        assert ended.returncode == 0, ended.stderr
    assert here("search", *SEARCH, "search.evaluations=24", "name=whole").returncode == 0
    parts, whole = (StudyResults(tmp_path / "runs" / n).trials() for n in ("parts", "whole"))
    assert len(whole) == 24
    pd.testing.assert_frame_equal(found(parts), found(whole))


def test_partial_trainings_are_the_published_short_ones(here: Here, tmp_path: Path) -> None:
    rungs = ("fidelity=mo_asha", "fidelity.rungs=[0.06,1.0]", "fidelity.noise={error: 0.5}")
    ended = here("search", *SEARCH, *rungs, "search.mode=async", "search.evaluations=3")
    assert ended.returncode == 0, ended.stderr
    trials = StudyResults(tmp_path / "runs" / "nasbench201").trials()
    assert set(trials["fidelity"]) == {0.06, 1.0}
    for share, epochs in ((0.06, 12), (1.0, 200)):
        part = trials[trials["fidelity"] == share]
        rows = TABLE.rows(part["genotype"].tolist())
        np.testing.assert_array_equal(part["error"], TABLE.error("cifar10", epochs)[rows])
        np.testing.assert_array_equal(part["seconds"], TABLE.seconds("cifar10", epochs)[rows])
    shown = here("pareto", "nasbench201", "--fidelity", "0.06").stdout
    assert "here after 6 % of that training" in " ".join(shown.split())


def test_a_search_that_trained_nothing_fully_says_so(here: Here) -> None:
    rungs = ("fidelity=mo_asha", "fidelity.rungs=[0.06,1.0]", "fidelity.eta=1000")
    ended = here("search", *SEARCH, *rungs, "search.evaluations=1")
    assert ended.returncode == 2
    assert "no architecture was trained fully; its trials are kept" in ended.stderr


def test_a_device_that_is_not_published_is_refused_with_those_there_are(here: Here) -> None:
    ended = here("search", "experiment=nasbench201", "device.hardware=pixel9")
    assert ended.returncode == 2
    assert ended.stderr.startswith("nas: device.hardware: got 'pixel9'")
    assert all(name in ended.stderr for name in ("1080ti_1", "raspi4"))


@pytest.mark.parametrize(
    ("name", "columns"),
    [("nasbench_macro", ["macs_m", "params_m"]), ("accel_nasbench", ["latency_ms_published"])],
)
def test_tables_without_devices_or_seconds(
    name: str, columns: list[str], here: Here, tmp_path: Path
) -> None:
    limit = 'search.constraints=["params_m <= 2.5"]'
    fast = ("search.algorithm.initial=6", "search.evaluations=10", limit)
    ended = here("search", f"experiment={name}", *fast)
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(tmp_path / "runs" / name)
    assert "one a training: none is published" in study.published["seconds"]
    trials = study.trials()
    table = tables.get(name)
    rows = table.rows(trials["genotype"].tolist())
    [(dataset, data)] = table.data.items()
    np.testing.assert_array_equal(trials["error"], table.error(dataset, max(data.splits))[rows])
    assert (trials["params_m"] <= 2.5).all()
    assert trials[columns].notna().all(axis=None)


def test_a_sample_is_searched_as_such_or_refused(here: Here) -> None:
    ended = here("search", "experiment=accel_nasbench", "search_space.listed=''")
    assert ended.returncode == 2
    assert "search_space.listed: got ''" in ended.stderr
    partial = ("fidelity=mo_asha", "fidelity.rungs=[0.5,1.0]")
    ended = here("search", "experiment=accel_nasbench", *partial)
    assert ended.returncode == 2
    assert "fidelity.rungs: got 0.5" in ended.stderr


def test_a_published_device_needs_no_calibration(here: Here) -> None:
    ended = here("calibrate", "experiment=nasbench201")
    assert ended.returncode == 2
    assert ended.stderr.startswith("nas: device: got 'table', expected a device that measures")
