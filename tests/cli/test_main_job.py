"""From settings to a verified front and an exported network, as a user does it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nas_command import SMALL, Ended, Finished, Nas
from PIL import Image

from nas.results.study import StudyResults

pytestmark = pytest.mark.slow


def test_a_study_leaves_a_verified_front(finished: Finished) -> None:
    study = finished.study
    assert study.status == "finalised"
    trials = study.trials()
    assert list(trials["number"]) == list(range(6))
    assert (trials["status"] == "complete").all()
    verified = trials[trials["verified"]]
    assert 1 <= len(verified) <= 2
    for arch_id in verified["arch_id"]:
        result = json.loads((finished.folder / "finalised" / arch_id / "result.json").read_text())
        deployment = finished.folder / "finalised" / arch_id / "deployment.json"
        assert json.loads(deployment.read_text())["max_abs_difference"] <= 1e-4
        assert result["latency_ms_measured"] > 0
        assert result["peak_memory_mb_measured"] > 0
        assert 0 <= result["error_final"] <= 100
        assert 0 <= result["error_test"] <= 100


def test_predicted_and_measured_stand_in_columns_of_their_own(finished: Finished) -> None:
    verified = finished.study.trials().query("verified")
    assert np.isfinite(verified[["latency_ms_predicted", "latency_ms_measured"]]).all(axis=None)
    assert "latency_ms" not in verified
    assert (verified["latency_ms_predicted"] != verified["latency_ms_measured"]).all()
    rest = finished.study.trials().query("not verified")
    assert rest["latency_ms_predicted"].notna().all()
    assert rest["latency_ms_measured"].isna().all()


def test_the_calibration_is_kept_with_all_its_samples(finished: Finished) -> None:
    calibration = json.loads((finished.folder / "predictor" / "calibration.json").read_text())
    assert len(calibration["samples"]) == 4
    assert all(len(sample["samples_ms"]) >= 36 for sample in calibration["samples"])


def test_table_and_figure_lie_in_the_study(finished: Finished) -> None:
    with (finished.folder / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    front = finished.study.pareto()
    assert [row["arch_id"] for row in rows] == list(front["arch_id"])
    assert {"latency_ms_predicted", "latency_ms_measured", "error", "error_test"} <= set(rows[0])
    with Image.open(finished.folder / "pareto.png") as image:
        assert min(image.size) > 300


def test_the_page_draws_the_networks_of_the_front(
    finished: Finished, nas: Nas, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    assert nas("report", str(finished.folder), "--out", str(path)).stdout.strip() == str(path)
    page = path.read_text()
    [text] = re.findall(r'<script type="application/json" id="contents">(.*?)</script>', page)
    [study] = json.loads(text)["studies"]
    assert set(study["drawings"]) >= set(finished.study.pareto()["arch_id"])
    assert {row["what"] for row in study["times"]} >= {"calibration", "search", "verification"}


def test_the_output_is_plain_lines_that_do_not_wrap(finished: Finished) -> None:
    lines = finished.printed.splitlines()
    assert "\x1b" not in finished.printed
    [announced] = [line for line in lines if "evaluating 6 architectures on" in line]
    assert announced
    trials = [line for line in lines if "hypervolume" in line]
    assert len(trials) == 6
    for number, line in enumerate(trials, start=1):
        assert f"] {number}/6 " in line
        assert "best error " in line
        assert "latency_ms_predicted " in line
        assert (" left" in line) == (number < 6)
    rows = [line.split() for line in lines[lines.index(trials[-1]) :]]
    ids = {row[0] for row in rows if row and re.fullmatch(r"[0-9a-f]{12}", row[0])}
    assert set(finished.study.pareto()["arch_id"]) == ids
    assert lines[-1] == ("runs/small: pareto.csv, pareto.png; next: nas export small --pick knee")


def test_other_commands_read_a_study_from_any_folder(finished: Finished, nas: Nas) -> None:
    runs = str(finished.folder.parent)
    front = finished.study.pareto()
    shown = json.loads(nas("pareto", "small", "--runs", runs, "--json").stdout)
    assert [record["arch_id"] for record in shown] == list(front["arch_id"])

    where = "latency_ms_measured < 1.0 and params_m < 0.5"
    by_path = nas("pareto", str(finished.folder), "--where", where, "--sort", "error", "--json")
    errors = [record["error"] for record in json.loads(by_path.stdout)]
    assert errors
    assert errors == sorted(errors)
    none = nas("pareto", str(finished.folder), "--where", "params_m > 1000", "--json")
    assert json.loads(none.stdout) == []

    [record] = json.loads(nas("studies", "--runs", runs, "--json").stdout)
    assert record["name"] == "small"
    assert record["status"] == "finalised"
    assert record["trials_complete"] == 6

    unknown = nas("pareto", "smal", "--runs", runs)
    assert unknown.returncode == 2
    assert unknown.stderr.count("\n") == 1
    assert "small" in unknown.stderr


def test_every_pick_is_exported_and_runs_on_its_own(
    finished: Finished, here: Callable[..., Ended], tmp_path: Path
) -> None:
    runs = str(finished.folder.parent)
    arch_id = finished.study.pareto()["arch_id"].iloc[-1]
    for pick in ("knee", arch_id):
        out = tmp_path / f"out_{pick}"
        # The command itself runs the exported folder in a process without the project.
        ended = here("export", "small", "--runs", runs, "--pick", pick, "--out", str(out))
        assert ended.returncode == 0, ended.stderr
        assert "runs without this project" in ended.stdout
        assert (out / "model.onnx").is_file()
    for pick in ("best", "fastest"):
        assert finished.study.pick(pick)["verified"]
    others = finished.study.trials().query("not verified")
    refused = here("export", "small", "--runs", runs, "--pick", others["arch_id"].iloc[0])
    assert refused.returncode == 2
    assert "expected a verified architecture" in refused.stderr


def copy_of(finished: Finished, folder: Path) -> Path:
    """Return a copy of the finished study, which a test may go on with."""
    return Path(shutil.copytree(finished.folder, folder / "runs" / "small"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_command_again_evaluates_nothing(finished: Finished, nas: Nas) -> None:
    folder = copy_of(finished, nas.folder)
    before = contents(folder)
    # Ray would announce itself by its files.
    again = nas("search", *SMALL, env={"RAY_TMPDIR": str(nas.folder / "ray")})
    assert again.returncode == 0, again.stderr
    assert "nothing is left to do" in again.stdout
    after = contents(folder)
    for name in ("pareto.png", "pareto.csv"):
        before.pop(name), after.pop(name)
    assert before == after
    assert not (nas.folder / "ray").exists()


def test_more_evaluations_go_on_after_the_first(finished: Finished, nas: Nas) -> None:
    folder = copy_of(finished, nas.folder)
    before = finished.study.trials()
    more = nas("search", *SMALL, "search.evaluations=8")
    assert more.returncode == 0, more.stderr
    assert "in the ledger: 6 architectures; evaluating 2 architectures" in more.stdout
    after = StudyResults(folder).trials()
    assert len(after) == 8
    same = ["number", "arch_id", "error", "latency_ms_predicted", "seconds"]
    assert after[same].head(6).equals(before[same])
    assert StudyResults(folder).status == "finalised"
    assert set(finished.study.trials().query("verified")["arch_id"]) <= set(
        after.query("verified")["arch_id"]
    )


def test_a_changed_setting_is_refused(
    finished: Finished, here: Callable[..., Ended], tmp_path: Path
) -> None:
    folder = copy_of(finished, tmp_path)
    before = contents(folder)
    for change in ("seed=1", "device.threads=2", "finalise.recipe.epochs=2"):
        refused = here("search", *SMALL, change)
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"nas: {change.split('=')[0]}: got ")
        assert "give the new study another name" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert contents(folder) == before
