"""A study that measures candidates: stopped anywhere it goes on, and another one reuses it all."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest
from nas_command import SMALL, Nas, number_of_trials, wait_until, wait_until_gone

from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

SETTINGS = (
    *SMALL,
    "latency_predictor=macs",  # its intervals are wide
    "latency_predictor.samples=12",
    "search.evaluations=8",
    "search.adaptive_measurement.measurements=4",
    'search.constraints=["latency_ms <= 0.02"]',
    "finalise.limit=0",
)
SAME = ["number", "arch_id", "error", "latency_ms_predicted", "latency_ms_measured"]


@dataclass
class MeasuredStudy:
    """A study that was killed twice, and one of the same settings that was not."""

    killed: StudyResults
    whole: StudyResults
    measured_before: int
    printed: str


def kill_when(nas: Nas, condition: Any) -> None:
    with nas.started("search", *SETTINGS) as process:
        wait_until(condition)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until_gone(family)


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> MeasuredStudy:
    nas = Nas(tmp_path_factory.mktemp("routed"))
    runs = nas.folder / "runs"

    def kept() -> int:
        files = (runs / "measurements").glob("*/[!.]*.json")
        return sum(file.name != "device.json" for file in files)

    kill_when(nas, lambda: kept() > 0)
    measured_before = kept()
    assert not (runs / "small" / "predictor" / "predictor.json").exists()
    kill_when(nas, lambda: number_of_trials(runs / "small") >= 3)
    for arguments in (SETTINGS, (*SETTINGS, "name=whole")):
        ended = nas("search", *arguments)
        assert ended.returncode == 0, ended.stderr
    return MeasuredStudy(
        killed=StudyResults(runs / "small"),
        whole=StudyResults(runs / "whole"),
        measured_before=measured_before,
        printed=ended.stdout,
    )


def record(study: StudyResults, name: str = "study.json") -> dict[str, Any]:
    return dict(json.loads((study.path / name).read_text()))


def test_a_killed_calibration_goes_on_from_what_it_had_measured(routed: MeasuredStudy) -> None:
    cost = record(routed.killed)["calibration"]
    assert cost["reused"] == routed.measured_before > 0
    assert cost["measured"] + cost["reused"] == 12
    assert cost["seconds_reused"] > 0


def test_a_second_study_measures_nothing_again(routed: MeasuredStudy) -> None:
    study = record(routed.whole)
    assert (study["calibration"]["measured"], study["calibration"]["reused"]) == (0, 12)
    assert "12 of 12 networks had been measured before" in routed.printed
    rows = record(routed.whole, "adaptive_measurement.json")["measured"]
    assert rows
    assert all(row["taken"]["reused"] for row in rows)
    assert study["adaptive_measurement"]["seconds_reused"] > 0


def test_killed_or_not_the_study_is_the_same(routed: MeasuredStudy) -> None:
    expected = routed.whole.trials()
    assert len(expected) == 8
    assert routed.killed.trials()[SAME].equals(expected[SAME])


def test_measured_and_predicted_stand_in_columns_of_their_own(routed: MeasuredStudy) -> None:
    trials = routed.killed.trials()
    rows = record(routed.killed, "adaptive_measurement.json")["measured"]
    summary = record(routed.killed)["adaptive_measurement"]
    assert summary["measured"] == len(rows) == sum(summary["by_reason"].values()) <= 4
    measured = trials[trials["latency_ms_measured"].notna()]
    trained = {row["arch_id"] for row in rows if row["kept"] or row["reason"] == "front"}
    assert trained <= set(measured["arch_id"])
    for row in rows:
        of_trial = trials[trials["arch_id"] == row["arch_id"]]
        if row["reason"] == "constraint" and not row["kept"]:
            assert of_trial.empty
        else:
            samples = row["taken"]["measurement"]["samples_ms"]
            assert of_trial["latency_ms_measured"].item() == np.percentile(samples, 10)
            assert of_trial["latency_ms_predicted"].item() == row["updated_ms"]
    limited = trials["latency_ms_measured"].fillna(trials["latency_ms_predicted"])
    assert (trials["feasible"] == (limited <= 0.02)).all()


def test_a_routed_candidate_is_told_of(routed: MeasuredStudy) -> None:
    rows = record(routed.whole, "adaptive_measurement.json")["measured"]
    for row in rows:
        [line] = [x for x in routed.printed.splitlines() if f"{row['arch_id']} predicted " in x]
        assert "straddles" in line
        assert "; measured " in line


def test_the_store_is_no_study(routed: MeasuredStudy) -> None:
    from nas import results

    names = [study["name"] for study in results.studies(routed.whole.path.parent)]
    assert sorted(names) == ["small", "whole"]


def test_the_measurement_store_lies_beside_the_studies(routed: MeasuredStudy) -> None:
    [device] = (routed.whole.path.parent / "measurements").iterdir()
    assert json.loads((device / "device.json").read_text())["runtime_version"]
