"""Studies that are searched in this process, on workers that all of them share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nas_command import SMALL, Ended
from PIL import Image

from nas.cluster.connection import connected
from nas.core.trial import Candidate
from nas.results.study import LEDGER_URL, StudyResults
from nas.study.verification import Verification

pytestmark = pytest.mark.slow

Here = Callable[..., Ended]
SEARCH = (*SMALL, "search.objectives=[error,params_m]", "search.evaluations=4", "finalise.limit=0")


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    with connected(None):
        yield


def test_an_impossible_constraint_names_the_nearest_value(here: Here, tmp_path: Path) -> None:
    impossible = 'search.constraints=["params_m <= 0.0001"]'
    ended = here("search", *SEARCH, impossible)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "architectures meets params_m <= 0.0001" in ended.stderr
    assert "params_m 0.00" in ended.stderr
    # Nothing was searched, so the limit may be loosened under the same name.
    loosened = here("search", *SEARCH, 'search.constraints=["params_m <= 0.02"]')
    assert loosened.returncode == 0, loosened.stderr
    trials = StudyResults(tmp_path / "runs" / "small").trials()
    assert len(trials) == 4
    assert (trials["params_m"] <= 0.02).all()
    tightened = here("search", *SEARCH, impossible)
    assert tightened.returncode == 2
    assert tightened.stderr.startswith("nas: search.constraints: got ['params_m <= 0.0001']")


def test_any_architecture_is_verified_with_several_seeds(here: Here, tmp_path: Path) -> None:
    first = here("search", *SEARCH, "finalise.limit=1")
    assert first.returncode == 0, first.stderr
    study = StudyResults(tmp_path / "runs" / "small")
    trials = study.trials()
    [member], other = trials[trials["verified"]]["arch_id"], trials[~trials["verified"]].iloc[0]
    more = ("finalise.limit=1", f"finalise.picks=[{other['arch_id'][:6]}]", "finalise.seeds=3")
    again = here("search", *SEARCH, *more)
    assert again.returncode == 0, again.stderr
    trials = study.trials().set_index("arch_id")
    assert set(trials.index[trials["verified"]]) == {member, other["arch_id"]}
    results = {
        arch_id: [
            json.loads((study.path / "finalised" / part / arch_id / "result.json").read_text())
            for part in (".", "seeds/1", "seeds/2")
        ]
        for arch_id in (member, other["arch_id"])
    }
    for arch_id, found in results.items():
        row = trials.loc[arch_id]
        assert row["error_final"] == found[0]["error_final"]
        assert row["seeds"] == len(found)
        for name in ("error_final", "error_test", "worst_class_error_test"):
            values = [result[name] for result in found]
            assert row[f"{name}_mean"] == pytest.approx(np.mean(values))
            assert row[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))
        assert len({result["error_final"] for result in found}) > 1, "seeds are those of the first"
    assert "finished before" in here("search", *SEARCH, *more).stdout
    assert here("export", "small", "--pick", other["arch_id"]).returncode == 0
    # A condition is met by what the search knows of architectures that are not verified yet.
    [third, _] = trials[~trials["verified"]].index
    condition = f'finalise.picks=["number == {trials.loc[third, "number"]}"]'
    assert here("search", *SEARCH, "finalise.limit=1", condition).returncode == 0
    assert study.trials().set_index("arch_id").loc[third, "verified"]
    wrong = here("search", *SEARCH, "finalise.limit=1", "finalise.picks=[fastes]")
    assert wrong.returncode == 2
    assert "fastest" in wrong.stderr


def test_a_constraint_need_not_be_an_objective(here: Here, tmp_path: Path) -> None:
    limit = 'search.constraints=["macs_m <= 0.3"]'
    ended = here("search", *SEARCH, limit, "finalise.limit=1")
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(tmp_path / "runs" / "small")
    assert (study.trials()["macs_m"] <= 0.3).all()
    front = study.pareto()
    assert len(front) == 1
    assert front["verified"].all()
    assert (front["macs_m"] <= 0.3).all()


def test_a_ledger_may_lie_elsewhere(
    here: Here,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "x.db"
    ended = here("search", *SEARCH, f"ledger.url=sqlite:///{file}")
    assert ended.returncode == 0, ended.stderr
    assert file.is_file()
    folder = tmp_path / "runs" / "small"
    assert not (folder / "ledger.db").exists()
    assert " - " in here("studies").stdout
    refused = here("pareto", "small")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert LEDGER_URL in refused.stderr
    again = here("search", *SEARCH, f"ledger.url=sqlite:///{file}")
    assert "nothing is left to do" in again.stdout
    monkeypatch.setenv(LEDGER_URL, f"sqlite:///{file}")
    assert here("pareto", "small").returncode == 0
    assert len(StudyResults(folder).trials()) == 4
    moved = here("search", *SEARCH)
    assert moved.returncode == 2
    assert moved.stderr.startswith("nas: ledger.url: got None")


def test_a_damaged_ledger_of_a_study_is_named(here: Here, tmp_path: Path) -> None:
    assert here("search", *SEARCH).returncode == 0
    ledger = tmp_path / "runs" / "small" / "ledger.db"
    ledger.write_bytes(b"damaged" * 1000)
    for command in (("search", *SEARCH), ("pareto", "small")):
        ended = here(*command)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert "file is not a database" in ended.stderr


def test_several_studies_in_one_command(here: Here, tmp_path: Path) -> None:
    ended = here(
        "search", "--multirun", *SEARCH, "search.evaluations=2", "seed=0,1", "name=digits_${seed}"
    )
    assert ended.returncode == 0, ended.stderr
    studies = [StudyResults(tmp_path / "runs" / f"digits_{seed}") for seed in (0, 1)]
    assert [study.record["seed"] for study in studies] == [0, 1]
    first, second = (study.trials() for study in studies)
    assert len(first) == len(second) == 2
    assert list(first["arch_id"]) != list(second["arch_id"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_an_experiment_of_the_users_own(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /search: random_search\n"
        "name: tiny\nfinalise: {limit: 0}\nevaluation: {recipe: {epochs: 1}}\n"
        "search: {evaluations: 2, objectives: [error, macs_m]}\n"
    )
    ended = here("search", "--config-dir", str(folder.parent), "experiment=tiny")
    assert ended.returncode == 0, ended.stderr
    assert len(StudyResults(tmp_path / "runs" / "tiny").trials()) == 2


def test_a_search_without_a_feasible_trial_keeps_its_trials(here: Here, tmp_path: Path) -> None:
    ended = here("search", *SEARCH, 'search.constraints=["error <= 0.001"]', "finalise.limit=1")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "no trial meets error <= 0.001" in ended.stderr
    assert len(StudyResults(tmp_path / "runs" / "small").trials()) == 4


def test_a_search_whose_trials_all_fail_gives_up_with_the_cause(here: Here, tmp_path: Path) -> None:
    hopeless = (
        "evaluation.time_limit_s=0.000001",
        "search.stop.failures=3",
        "search.evaluations=9",
    )
    ended = here("search", *SEARCH, *hopeless)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "trials failed: timeout: stopped after 0 of" in ended.stderr
    assert "raise search.stop.failures to go on" in ended.stderr
    study = StudyResults(tmp_path / "runs" / "small")
    kept = len(study.trials())
    assert 3 <= kept < 9
    assert study.record["stop"]["by"] == "failures"
    assert here("search", *SEARCH, *hopeless).stderr == ended.stderr
    # Mended, it goes on from there.
    mended = here("search", *SEARCH, "search.stop.failures=null", "search.evaluations=6")
    assert mended.returncode == 0, mended.stderr
    assert "the search has ended: 6 evaluations" in mended.stdout
    assert list(study.trials()["status"]) == ["failed"] * kept + ["complete"] * (6 - kept)


def test_an_asynchronous_search_is_stopped_by_time_and_goes_on(here: Here, tmp_path: Path) -> None:
    asynchronous = (*SEARCH, "search.mode=async", "search.evaluations=8")
    first = here("search", *asynchronous, "search.stop.worker_s=0.001")
    assert first.returncode == 0, first.stderr
    assert "s on workers, the limit is 0.001" in first.stdout
    study = StudyResults(tmp_path / "runs" / "small")
    before = study.trials()
    assert 1 <= len(before) < 8
    again = here("search", *asynchronous, "search.stop.worker_s=0.001")
    assert "finished before, nothing is left to do" in again.stdout
    more = here("search", *asynchronous)
    assert more.returncode == 0, more.stderr
    after = StudyResults(study.path).trials()
    assert len(after) == after["arch_id"].nunique() == 8
    same = ["number", "arch_id", "error", "ended_s"]
    assert after[same].head(len(before)).equals(before[same])
    changed = here("search", *SEARCH, "search.mode=batch", "search.evaluations=8")
    assert changed.stderr.startswith("nas: search.mode: got 'batch'")


def images_by_class(folder: Path, levels: tuple[int, ...], each: int) -> Path:
    """Write one folder of noisy images a class, which differ in brightness alone."""
    rng = np.random.default_rng(0)
    for name, level in zip("abc", levels, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(level + rng.normal(0, 4, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def test_int8_is_calibrated_by_images_of_every_class(here: Here, tmp_path: Path) -> None:
    # More images of the first class in each split than the calibration takes.
    folder = images_by_class(tmp_path / "photos", (8, 128, 248), 330)
    of_folder = ("data=image_folder", f"data.path={folder}", "data.grayscale=true")
    settings = ("device.precision=int8", "finalise.limit=1", "finalise.recipe.epochs=12")
    objectives = "search.objectives=[error,latency_ms]"
    ended = here("search", *SMALL, *of_folder, *settings, objectives, "search.evaluations=2")
    assert ended.returncode == 0, ended.stderr
    front = StudyResults(tmp_path / "runs" / "small").pareto().iloc[0]
    assert front["error_test_fp32"] < 5
    assert front["error_test"] < 5


def test_a_runtime_that_takes_networks_is_calibrated_and_verified(
    here: Here, tmp_path: Path
) -> None:
    objectives = "search.objectives=[error,latency_ms]"
    ended = here("search", *SMALL, objectives, "device.runtime=torch", "finalise.limit=1")
    assert ended.returncode == 0, ended.stderr
    front = StudyResults(tmp_path / "runs" / "small").pareto().iloc[0]
    assert front["latency_ms_measured"] > 0
    assert np.isnan(front["error_test_fp32"]), "the program computes what the network does"
    exported = here("export", "small", "--out", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    [measured] = (tmp_path / "runs" / "small" / "finalised").glob("*/deployed.pt2")
    assert (tmp_path / "out" / "deployed.pt2").read_bytes() == measured.read_bytes()


def test_data_that_changed_are_refused(here: Here, tmp_path: Path) -> None:
    folder = images_by_class(tmp_path / "photos", (8, 128, 248), 30)
    search = (*SEARCH, "data=image_folder", f"data.path={folder}", "data.grayscale=true")
    search = (*search, "search.evaluations=2")
    first = here("search", *search)
    assert first.returncode == 0, first.stderr
    assert "54 train, 18 validation, 18 test images of 3 classes" in first.stdout
    trials = len(StudyResults(tmp_path / "runs" / "small").trials())
    more = (*search, "search.evaluations=3")

    def refused(*named: str) -> None:
        ended = here("search", *more)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert all(name in ended.stderr for name in (*named, "study 'small' began"))

    (folder / "b" / "007.png").rename(tmp_path / "kept.png")
    refused("'b'")
    (tmp_path / "kept.png").rename(folder / "b" / "007.png")
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (folder / old).rename(folder / new)
    refused("images or targets have changed")
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (folder / old).rename(folder / new)
    (folder / "c").rename(folder / "d")
    refused("class names", "'d'")
    (folder / "d").rename(folder / "c")
    assert len(StudyResults(tmp_path / "runs" / "small").trials()) == trials
    # The same images elsewhere are the same data.
    assert here("search", *more).returncode == 0
    assert len(StudyResults(tmp_path / "runs" / "small").trials()) == trials + 1


def test_a_broken_test_image_is_found_before_anything_is_trained(
    here: Here, tmp_path: Path
) -> None:
    folder = images_by_class(tmp_path / "photos", (8, 128, 248), 30)
    for split in ("train", "validation", "test"):
        (tmp_path / "split" / split).mkdir(parents=True)
    for name in "abc":
        for split in ("train", "validation", "test"):
            shutil.copytree(folder / name, tmp_path / "split" / split / name)
    broken = tmp_path / "split" / "test" / "c" / "029.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = ("data=image_folder", f"data.path={tmp_path / 'split'}", "data.grayscale=true")
    ended = here("search", *SEARCH, *data)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "029.png" in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_each_member_is_trained_measured_and_tested_once(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, record = [], Verification._record

    def interrupt(self: Verification, member: Candidate, *numbers: Any) -> None:
        tested.append(member.arch_id)
        record(self, member, *numbers)
        if len(tested) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Verification, "_record", interrupt)
    search = (*SEARCH, "search.evaluations=12", "finalise.limit=2")
    assert here("search", *search).returncode == 130
    folder = tmp_path / "runs" / "small"
    steps = sorted(folder.glob("finalised/*/*.json"))
    before = {path: path.stat().st_mtime_ns for path in steps}
    ended = here("search", *search)
    assert ended.returncode == 0, ended.stderr
    assert len(tested) == len(set(tested)) == 2
    assert {path: path.stat().st_mtime_ns for path in steps} == before
    assert set(StudyResults(folder).trials().query("verified")["arch_id"]) == set(tested)
