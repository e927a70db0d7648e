from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import logging
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_studies import finalise, make_trial, random_trials
from PIL import Image
from rich.console import Console

import nas
from nas.core.errors import ConfigError, HwnasError, LedgerError
from nas.core.files import write_json_atomically
from nas.core.trial import Trial
from nas.results import studies
from nas.results.comparison import outcomes, settings_that_differ
from nas.results.database import sqlite_url
from nas.results.frame import records
from nas.results.plot import fronts_figure, pareto_figure, plot_pareto
from nas.results.report import report_frame, table, write_pareto_csv, write_table
from nas.results.study import LEDGER_URL, StudyResults
from nas.study.noise import front_line
from nas.study.recorded_space import recorded_space

Build = Callable[..., Path]

# Errors and predicted latencies; number 3 is dominated, number 4 failed.
TRIALS = [
    make_trial(0, 10.0, 2.0),
    make_trial(1, 12.0, 1.0),
    make_trial(2, 20.0, 0.5),
    make_trial(3, 21.0, 0.9),
    make_trial(4, 0.0, 0.0, "timeout: 60 s"),
]


def numbers(frame: object) -> list[int]:
    return list(frame["number"])  # type: ignore[index]


def test_trials_has_a_row_for_every_trial(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder(TRIALS))
    frame = study.trials()
    assert numbers(frame) == [0, 1, 2, 3, 4]
    assert list(frame["status"]) == ["complete"] * 4 + ["failed"]
    assert frame["genotype"][1] == (1, 1, 1, 1)
    assert frame["latency_ms_predicted"][1] == 1.0
    assert frame["params_m"][1] == pytest.approx(0.2)
    assert frame["failure"][4] == "timeout: 60 s"
    for column in ("error_test", "latency_ms_measured", "latency_ms_measured_ci", "model_size_mb"):
        assert frame[column].isna().all()
    assert np.isnan(frame["error"][4])


def test_verified_values_are_joined_and_never_mixed(study_folder: Build) -> None:
    trial = dataclasses.replace(TRIALS[1], facts={"model_size_mb": 0.8})
    folder = study_folder([TRIALS[0], trial])
    finalise(folder, trial, measured_ms=1.1)
    row = nas.results.open_study(folder).trials().set_index("number").loc[1]
    assert (row["latency_ms_predicted"], row["latency_ms_measured"]) == (1.0, 1.1)
    assert (row["model_size_mb_predicted"], row["model_size_mb"]) == (0.8, 0.5)
    assert row["error_test"] == 12.0
    assert row["verified"]


def test_pareto_of_a_search(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder(TRIALS))
    assert numbers(study.pareto()) == [0, 1, 2]
    assert numbers(study.pareto(sort="latency_ms")) == [2, 1, 0]
    # The filter comes first: what dominated number 3 is filtered out.
    assert numbers(study.pareto(where="latency_ms > 0.5 and latency_ms < 1")) == [3]
    assert numbers(study.pareto(where="error < 0")) == []
    assert numbers(study.pareto(objectives=["error"])) == [0]
    assert numbers(study.pareto(objectives=["params_m", "latency_ms_predicted"])) == [2, 1, 0][::-1]
    assert numbers(study.pareto(objectives=["error", "latency_ms_measured"])) == []


def test_pareto_of_a_finalised_study_is_measured(study_folder: Build) -> None:
    folder = study_folder(TRIALS, status="finalised")
    finalise(folder, TRIALS[1], measured_ms=1.2)
    finalise(folder, TRIALS[2], measured_ms=1.3)
    finalise(folder, TRIALS[3], measured_ms=0.8)
    study = nas.results.open_study(folder)
    assert numbers(study.pareto()) == [1, 3]
    assert numbers(study.pareto(objectives=["error", "latency_ms"])) == [0, 1, 2]
    assert study.pick("fastest")["number"] == 3
    # Verified and other rows in one table: nothing is called verified, no knee is made up.
    mixed = report_frame(study, study.pareto(objectives=["error", "latency_ms"]))
    assert not mixed["knee"].any()
    assert "not verified" in str(table(study, mixed).title)
    assert report_frame(study)["knee"].sum() == 1


def test_a_finalised_front_is_that_of_the_final_errors(study_folder: Build) -> None:
    folder = study_folder(TRIALS, constraints=["error <= 19"], status="finalised")
    # The search's errors are 10, 12 and 20; the final ones turn their order round.
    finalise(folder, TRIALS[0], measured_ms=2.0, error_final=9.0, error_test=50.0)
    finalise(folder, TRIALS[1], measured_ms=1.0, error_final=8.0, error_test=51.0)
    finalise(folder, TRIALS[2], measured_ms=0.5, error_final=18.0, error_test=1.0)
    study = nas.results.open_study(folder)
    front = study.pareto()
    assert numbers(front) == [1, 2]
    assert list(front["error"]) == [12.0, 20.0], "the search's own stay beside them"
    assert study.pick("best")["number"] == 1, "the test split has no say"
    assert study.hypervolume() == pytest.approx((1 - 0.5) * 82 + 3 * 92)
    axes = pareto_figure(study).axes[0]
    [verified] = [c for c in axes.containers if str(c.get_label()).startswith("verified front")]
    assert verified.lines[0].get_xydata().tolist() == [[0.5, 18.0], [1.0, 8.0]]
    # A final error that breaks a limit does so whatever the search saw.
    finalise(folder, TRIALS[3], measured_ms=0.1, error_final=19.5)
    assert numbers(study.pareto()) == [1, 2]


def test_infeasible_trials_stay_off_the_front(study_folder: Build) -> None:
    folder = study_folder(TRIALS, constraints=["latency_ms <= 1"])
    study = nas.results.open_study(folder)
    assert list(study.trials()["feasible"]) == [False, True, True, True, False]
    assert numbers(study.pareto()) == [1, 2]
    # A measured value outweighs the predicted one.
    finalise(folder, TRIALS[1], measured_ms=1.01)
    assert numbers(study.pareto()) == []
    with pytest.raises(ConfigError, match="no trial keeps latency_ms <= 1"):
        study.pick("best")


def test_an_architecture_stands_on_the_front_once(study_folder: Build) -> None:
    again = dataclasses.replace(TRIALS[1], number=9)
    twin = dataclasses.replace(TRIALS[1], number=10, arch_id="f" * 12)
    study = nas.results.open_study(study_folder([*TRIALS, again, twin]))
    assert numbers(study.pareto()) == [0, 1, 10, 2]


# Half trained, numbers 1 and 3 would dominate everything.
RUNGS = [
    make_trial(0, 10.0, 2.0),
    dataclasses.replace(make_trial(1, 1.0, 0.4), fidelity=0.1),
    dataclasses.replace(make_trial(1, 12.0, 1.0), number=2),
    dataclasses.replace(make_trial(3, 0.5, 0.3), fidelity=0.1),
]


def test_fronts_do_not_mix_fidelities(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder(RUNGS))
    assert list(study.trials()["fidelity"]) == [1, 0.1, 1, 0.1]
    assert numbers(study.pareto()) == [0, 2]
    assert numbers(study.pareto(objectives=["error"])) == [0]
    assert numbers(study.pareto(where="fidelity < 1")) == []
    assert numbers(study.pareto(fidelity=0.1)) == [3]
    with pytest.raises(ConfigError, match=r"fidelity: got 0.2, expected one of .*: 0.1, 1"):
        study.pareto(fidelity=0.2)
    full = nas.results.open_study(study_folder([t for t in RUNGS if t.full], name="full"))
    assert study.hypervolume() == full.hypervolume()


def test_a_partial_training_is_never_verified_nor_the_best(study_folder: Build) -> None:
    folder = study_folder(RUNGS)
    finalise(folder, RUNGS[2], measured_ms=1.2)
    study = nas.results.open_study(folder)
    trials = study.trials()
    assert list(trials["verified"]) == [False, False, True, False]
    assert list(trials["error_test"].notna()) == [False, False, True, False]
    assert numbers(study.pareto()) == [2]
    assert study.pick(RUNGS[1].arch_id)["number"] == 2
    assert study.pick(RUNGS[3].arch_id)["fidelity"] == 0.1
    # Of what is handed over, not of what the search saw elsewhere.
    assert nas.results.studies(folder.parent)[0]["error_best"] == 12.0


def test_nan_objectives_drop_out(study_folder: Build) -> None:
    odd = {"error": float("nan"), "latency_ms": 0.1}
    study = nas.results.open_study(
        study_folder([*TRIALS, dataclasses.replace(TRIALS[3], number=8, arch_id="e", values=odd)])
    )
    assert numbers(study.pareto()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "speed < 1"}, "where: got 'speed', expected one of .*latency_ms"),
        ({"where": "import os"}, "where: got"),
        ({"objectives": ["speed"]}, "objectives: got 'speed', expected one of"),
        ({"objectives": ["arch_id"]}, "column of measured or predicted numbers"),
        ({"objectives": []}, "one column or more"),
        ({"sort": "speed"}, "sort: got 'speed'"),
    ],
)
def test_pareto_refuses(study_folder: Build, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nas.results.open_study(study_folder(TRIALS)).pareto(**arguments)


def test_pick(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder(TRIALS))
    assert study.pick("best")["number"] == 0
    assert study.pick("fastest")["number"] == 2
    assert study.pick("knee")["number"] == 1
    assert study.pick("000000000003")["number"] == 3
    assert study.pick("latency_ms_predicted < 1.5")["number"] == 1
    assert study.pick("latency_ms < 1 and error <= 21")["number"] == 2
    for text, number in {
        "min latency_ms": 2,
        "max latency_ms": 0,
        "error < 15, min latency_ms": 1,
        " latency_ms_predicted < 1.5 and error < 100 ,  max error ": 2,
    }.items():
        assert study.pick(text)["number"] == number
    for text, message in {
        "error < 15, min speed": "got 'speed', expected one of",
        "error < 15, min arch_id": "a column of measured",
        "error < 3, min error": "error is 10 to 21",
        "min error_final": "got 'error_final'|knows error_final",
        "error < 15, min error, min latency_ms": "comparisons",
        "error < 15, latency_ms < 2, min error": "comparisons",
        "error < 15, latency_ms": "comparisons",
        "__import__('os').getcwd(), min error": "comparisons",
        ", min error": "one arch_id",
        "min": "one arch_id",
        "0000": "it fits 000000000000, 000000000001",
        "error < 3": "error is 10 to 21",
        "speed < 3": "speed",
        "zz": "it fits none",
        "": "one arch_id",
        "000000000004": "timeout: 60 s",
    }.items():
        with pytest.raises(ConfigError, match=message):
            study.pick(text)


def test_hypervolume_against_the_stored_reference(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder(TRIALS))
    # Reference (100 %, 4 ms): slices of latency from 0.5, 1 and 2 ms on.
    expected = (1 - 0.5) * 80 + (2 - 1) * 88 + (4 - 2) * 90
    assert study.hypervolume() == pytest.approx(expected)
    assert study.hypervolume_share() == pytest.approx(expected / 400)


def test_a_study_that_has_just_started(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder([]))
    assert len(study.trials()) == len(study.pareto()) == 0
    assert study.hypervolume() == 0
    assert study.status == "searching"
    assert "'digits', searching" in repr(study)
    with pytest.raises(ConfigError, match="no trial is complete"):
        study.pick("knee")


def test_a_ledger_that_is_gone(study_folder: Build) -> None:
    folder = study_folder(TRIALS)
    (folder / "ledger.db").unlink()
    with pytest.raises(LedgerError, match="does not exist"):
        nas.results.open_study(folder).trials()
    assert not (folder / "ledger.db").exists(), "reading must not make an empty one"


def test_a_study_may_be_moved(study_folder: Build, tmp_path: Path) -> None:
    folder = study_folder(TRIALS)
    shutil.move(folder, tmp_path / "elsewhere")
    assert len(nas.results.open_study(tmp_path / "elsewhere").trials()) == 5


def test_records_are_plain_json(study_folder: Build) -> None:
    rows = records(nas.results.open_study(study_folder(TRIALS)).trials())
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["genotype"] == [0, 0, 0, 0]
    assert rows[4]["error"] is None
    assert rows[0]["failure"] is None


def test_studies_newest_first(study_folder: Build, caplog: pytest.LogCaptureFixture) -> None:
    runs = study_folder(TRIALS, "old", created_utc="2029-01-01T00:00:00Z").parent
    study_folder(TRIALS[:1], "new", status="searched")
    study_folder(TRIALS, "broken")
    (runs / "broken" / "study.json").write_text("{")
    study_folder(TRIALS, "corrupt")
    (runs / "corrupt" / "ledger.db").write_bytes(b"x" * 5000)
    study_folder(TRIALS, "limitless", reference_point={"error": 100.0})
    (runs / "other").mkdir()
    with caplog.at_level(logging.WARNING):
        found = nas.results.studies(runs)
    assert [(study["name"], study["status"]) for study in found] == [
        ("new", "searched"),
        ("old", "searching"),
    ]
    assert (found[1]["trials_complete"], found[1]["trials_failed"]) == (4, 1)
    assert found[1]["error_best"] == 10.0
    assert 0 < found[0]["hypervolume_share"] < found[1]["hypervolume_share"] < 1
    assert len(caplog.records) == 3
    json.dumps(found, allow_nan=False)
    assert nas.results.studies(runs / "nothing") == []


def test_open_names_the_studies_that_are_there(study_folder: Build) -> None:
    runs = study_folder(TRIALS).parent
    assert nas.results.open_study("digits", runs=runs).name == "digits"
    with pytest.raises(
        HwnasError, match=r"got 'digit', .* study of .*: digits; did you mean 'digits'"
    ):
        nas.results.open_study("digit", runs=runs)
    with pytest.raises(HwnasError, match="none"):
        nas.results.open_study("digits", runs=runs / "digits")


def test_unknown_objective_of_a_constraint(study_folder: Build) -> None:
    with pytest.raises(HwnasError, match=r"study\.json: .*'speed'.*latency_ms"):
        nas.results.open_study(study_folder(TRIALS, constraints=["speed < 3"])).trials()


def finalised(build: Build) -> Path:
    trials = random_trials(40)
    folder = build(trials, status="finalised")
    by_id = {trial.arch_id: trial for trial in trials}
    front = nas.results.open_study(folder).pareto()
    for factor, arch_id in enumerate(front["arch_id"]):
        trial: Trial = by_id[arch_id]
        finalise(folder, trial, measured_ms=trial.values["latency_ms"] * (1 + factor % 3 / 20))
    return folder


def test_table_and_csv(study_folder: Build, tmp_path: Path) -> None:
    study = nas.results.open_study(finalised(study_folder))
    console = Console(width=200, record=True, file=(tmp_path / "log").open("w"))
    console.print(table(study))
    text = console.export_text()
    knee = study.pick("knee")
    assert f"{knee['arch_id']} (knee)" in text
    assert f"{knee['latency_ms_measured']:#.3g} ± {knee['latency_ms_measured_ci']:.1g}" in text
    assert "cpu, 1 thread" in text
    write_pareto_csv(study, tmp_path / "pareto.csv")
    with (tmp_path / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["arch_id"] for row in rows] == list(study.pareto()["arch_id"])
    assert [row["arch_id"] for row in rows if row["knee"] == "True"] == [knee["arch_id"]]
    row = rows[0]
    ratio = float(row["latency_ms_measured"]) / float(row["latency_ms_predicted"])
    assert float(row["latency_deviation_percent"]) == pytest.approx(100 * (ratio - 1))
    assert len(json.loads(row["genotype"])) == 4


def size_of_plot(folder: Path) -> tuple[int, int]:
    path = folder / "pareto.png"
    plot_pareto(nas.results.open_study(folder), path)
    with Image.open(path) as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
        return image.size


def test_plot_of_a_finalised_study(study_folder: Build) -> None:
    assert size_of_plot(finalised(study_folder)) == (1200, 750)


@pytest.mark.parametrize("objectives", [("error",), ("error", "latency_ms", "params_m")])
def test_plot_of_one_and_of_three_objectives(
    study_folder: Build, objectives: tuple[str, ...]
) -> None:
    trials = []
    for trial in random_trials(20):
        known = {**trial.values, "params_m": trial.facts["params_m"]}
        values = {name: known[name] for name in objectives} if trial.complete else {}
        trials.append(dataclasses.replace(trial, values=values))
    assert size_of_plot(study_folder(trials, objectives=objectives)) == (1200, 750)


def test_plot_and_table_without_trials(study_folder: Build) -> None:
    folder = study_folder([])
    assert size_of_plot(folder) == (1200, 750)
    assert table(nas.results.open_study(folder)).row_count == 0


def test_fronts_of_several_studies_stand_in_one_picture(study_folder: Build) -> None:
    studies = [
        nas.results.open_study(folder)
        for folder in (study_folder(TRIALS, "searched"), finalised(study_folder))
    ]
    fronts = [study.pareto() for study in studies]
    axes = fronts_figure(studies, fronts).axes[0]
    lines = {str(c.get_label()): c.lines[0].get_xydata().tolist() for c in axes.containers}
    columns = (["latency_ms_predicted", "error"], ["latency_ms_measured", "error_final"])
    expected = [
        sorted(front[names].to_numpy().tolist())
        for front, names in zip(fronts, columns, strict=True)
    ]
    assert list(lines.values()) == expected
    assert [label.partition("(")[2] for label in lines] == ["not verified)", "verified)"]
    third = study_folder([], "memory", objectives=("error", "params_m"))
    with pytest.raises(ConfigError, match=r"objectives of memory.*searched"):
        fronts_figure([*studies, nas.results.open_study(third)], [*fronts, fronts[0]])


def test_plot_that_cannot_be_written(study_folder: Build, tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match="cannot be written"):
        plot_pareto(nas.results.open_study(study_folder(TRIALS)), tmp_path / "no" / "pareto.png")


def test_the_package_is_light() -> None:
    code = "import nas.results, sys; sys.exit(any(m in sys.modules for m in ('optuna', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_search_has_measured_stands_beside_what_it_predicted(study_folder: Build) -> None:
    folder = study_folder(TRIALS, constraints=["latency_ms <= 1.05"])
    before = nas.results.open_study(folder).trials().set_index("number")
    slow, fast = TRIALS[1], TRIALS[2]
    columns = [
        {
            "latency_ms_predicted": trial.values["latency_ms"] + change,
            "latency_ms_measured": measured_ms,
            "latency_ms_measured_ci": 0.01,
        }
        for trial, change, measured_ms in [(slow, 0.01, 1.06), (fast, -0.01, 1.04)]
    ]
    rows = [
        {"arch_id": t.arch_id, "columns": c} for t, c in zip((slow, fast), columns, strict=True)
    ]
    failed = {"arch_id": TRIALS[0].arch_id, "columns": {}}
    write_json_atomically(folder / "adaptive_measurement.json", {"measured": [*rows, failed]})
    study = nas.results.open_study(folder)
    after = study.trials().set_index("number")
    for trial, expected in zip((slow, fast), columns, strict=True):
        row = after.loc[trial.number]
        assert {name: row[name] for name in expected} == expected
        assert not row["verified"]
        # The limit is judged by what was measured.
        assert row["feasible"] == (expected["latency_ms_measured"] <= 1.05)
    others = after.drop([slow.number, fast.number])
    assert others["latency_ms_measured"].isna().all()
    assert others.equals(before.drop([slow.number, fast.number]))
    # A front of which only a part was measured is compared by predictions.
    front = study.pareto()
    assert study.front_columns(front) == list(study.columns.values())
    fastest = study.pick("fastest")
    assert fastest["latency_ms_predicted"] == front["latency_ms_predicted"].min()


def of_trial(key: str, value: str) -> str:
    return (
        f"UPDATE trial_user_attributes SET value_json = '{value}' "
        f"WHERE key = '{key}' AND trial_id = 2"
    )


def of_study(key: str, value: str) -> str:
    return f"UPDATE study_user_attributes SET value_json = '{value}' WHERE key = '{key}'"


@pytest.mark.parametrize(
    "damage",
    [
        of_study("owner", '"cut'),
        of_study("owner", "[]"),
        of_study("objectives", "5"),
        of_study("objectives", "[[1], 2]"),
        of_study("objectives", '["error", "size"]'),
        of_study("writer", "7"),
        of_trial("number", "1234567890123456789012"),
        of_trial("number", "null"),
        of_trial("arch_id", "[1]"),
        of_trial("seed", "1" * 30),
        of_trial("seed", "1.5"),
        of_trial("genotype", "[[]]"),
        of_trial("failure", "{}"),
        of_trial("facts", '{"number": 0.5}'),
        of_trial("facts", "[" * 100_000),
        of_trial("seconds", "1" * 400),
        "UPDATE trial_values SET value = 'many' WHERE trial_id = 2",
        "UPDATE trial_values SET value = x'ff' WHERE trial_id = 2",
        "UPDATE studies SET study_name = x'ff'",
        "UPDATE study_user_attributes SET value_json = 3",
        "DROP TABLE trial_values",
        "CREATE TABLE more (x); DROP TABLE studies; CREATE VIEW studies AS SELECT * FROM more",
    ],
)
def test_one_damaged_ledger_does_not_keep_the_others_from_being_listed(
    study_folder: Build, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    study_folder(random_trials(3), name="good")
    folder = study_folder(random_trials(3), name="bad")
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        ledger.executescript(damage)
        ledger.commit()
    assert [study["name"] for study in studies(tmp_path / "runs")] == ["good"]
    [warning] = caplog.messages
    assert "bad/ledger.db" in warning
    assert "\n" not in warning


def test_a_ledger_outside_of_the_folder_is_read_where_the_user_names_it(
    study_folder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study_folder(random_trials(3))
    elsewhere = tmp_path / "private.db"
    (folder / "ledger.db").rename(elsewhere)
    record = json.loads((folder / "study.json").read_text())
    url = sqlite_url(elsewhere)
    # The file of another folder, and a link to it in the study's.
    for linked in (False, True):
        if linked:
            (folder / "ledger.db").symlink_to(elsewhere)
        named = record["ledger_url"] if linked else url
        (folder / "study.json").write_text(json.dumps({**record, "ledger_url": named}))
        with contextlib.closing(sqlite3.connect(elsewhere)) as other:
            # Nothing waits for it.
            other.execute("BEGIN EXCLUSIVE")
            [listed] = studies(tmp_path / "runs")
            assert listed["trials_complete"] is None
            with pytest.raises(LedgerError, match=LEDGER_URL) as caught:
                StudyResults(folder).pareto()
            assert "\n" not in str(caught.value)
        assert len(StudyResults(folder, url).trials()) == 3
        with monkeypatch.context() as environment:
            environment.setenv(LEDGER_URL, url)
            assert len(StudyResults(folder).trials()) == 3


def test_noise_is_of_the_images_that_candidates_were_judged_on(study_folder: Build) -> None:
    study = StudyResults(study_folder([make_trial(0, 10.0, 2.0), make_trial(1, 12.0, 1.0)]))
    assert front_line(study, judged=100, images=1_000_000) is not None
    assert front_line(study, judged=1_000_000, images=100) is None


def test_studies_are_compared_by_settings_and_outcomes(study_folder: Build) -> None:
    folders = {"all": study_folder(TRIALS, "all"), "some": study_folder(TRIALS[1:], "some")}
    for (name, folder), evaluations in zip(folders.items(), (5, 4), strict=True):
        settings = f"name: {name}\nseed: 0\nsearch: {{evaluations: {evaluations}}}\n"
        (folder / "config.yaml").write_text(settings)
    studies = [StudyResults(folder) for folder in folders.values()]
    differing = settings_that_differ(studies)
    assert differing.to_dict("index") == {"search.evaluations": {"all": 5, "some": 4}}
    found = outcomes(studies)
    assert found.loc["complete trials"].tolist() == [4, 3]
    assert found.loc["least error"].tolist() == [10.0, 12.0]
    assert found.loc["hypervolume", "all"] == pytest.approx(studies[0].hypervolume_share())
    assert found.loc["hypervolume", "all"] > found.loc["hypervolume", "some"]
    (folders["some"] / "config.yaml").write_text("a: [")
    with pytest.raises(HwnasError, match=r"config\.yaml"):
        settings_that_differ(studies)


def test_a_notebook_shows_the_front(study_folder: Build) -> None:
    study = nas.results.open_study(study_folder(TRIALS, name="<i>"))
    shown = study._repr_html_()
    assert all(arch_id in shown for arch_id in study.pareto()["arch_id"])
    assert "search error %" in shown
    assert "<i>" not in shown


def test_a_condition_on_an_objective_is_about_the_front_it_picks_from(study_folder: Build) -> None:
    folder = study_folder(TRIALS)
    finalise(folder, TRIALS[0], measured_ms=3.0)
    finalise(folder, TRIALS[1], measured_ms=1.2)
    study = StudyResults(folder)
    # The first was predicted at 2 ms.
    assert study.pick("latency_ms < 2.5")["number"] == 1
    assert study.pick("latency_ms_predicted < 2.5")["number"] == 0
    assert study.pick("min latency_ms")["number"] == 1
    assert study.pick("latency_ms > 1, max latency_ms")["number"] == 0
    with pytest.raises(ConfigError, match=r"latency_ms_measured is 1\.2 to 3"):
        study.pick("latency_ms < 1")
    # Of the search's front there are others than those that are verified.
    searched = list(study.columns.values())
    numbers = set(study.pareto(objectives=searched)["number"])
    for text in ("knee", "best", "fastest", "latency_ms < 2.5"):
        assert study.pick(text, searched)["number"] in numbers
    assert study.pick("number == 2", searched)["number"] == 2
    with pytest.raises(ConfigError, match="number is 0 to 1"):
        study.pick("number == 2")


def test_no_function_that_a_study_names_is_called(study_folder: Build) -> None:
    space = {"name": "compressed", "input_shape": [1, 8, 8], "num_classes": 10, "base": "sys:exit"}
    study = StudyResults(study_folder(TRIALS, space=space))
    for allowed in (False, True):
        with pytest.raises(HwnasError, match=r"sys:exit.* is no folder"):
            recorded_space(study, allowed)


def test_a_markdown_table_has_a_cell_for_every_value(study_folder: Build, tmp_path: Path) -> None:
    front = StudyResults(study_folder(TRIALS)).pareto().assign(study="a|b")
    write_table(front, tmp_path / "front.md")
    lines = (tmp_path / "front.md").read_text().splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(line) for line in cells} == {len(front.columns)}
    for line in cells[2:]:
        values = dict(zip(front.columns, (cell.strip() for cell in line), strict=True))
        assert values["study"] == "a\\|b"
        assert values["error_test"] == values["failure"] == "-"


def test_means_say_of_how_many_seeds_they_are(study_folder: Build) -> None:
    folder = study_folder(TRIALS)
    for i in (0, 1):
        finalise(folder, TRIALS[i], measured_ms=1.0)
    # The second architecture's further trainings have not ended.
    finalise(folder, TRIALS[0], measured_ms=1.0, error_final=12.0, error_test=14.0)
    again = folder / "finalised" / "seeds" / "1"
    again.mkdir(parents=True)
    shutil.copytree(folder / "finalised" / TRIALS[0].arch_id, again / TRIALS[0].arch_id)
    finalise(folder, TRIALS[0], measured_ms=1.0)
    trials = StudyResults(folder).trials()
    assert trials["seeds"][0] == 2
    assert np.isnan(trials["seeds"][1])
    assert trials["error_final_mean"][0] == 11.0
    assert trials["error_final_std"][0] == pytest.approx(2**0.5)
    assert trials["error_test_mean"][0] == 13.0
    assert np.isnan(trials["error_final_mean"][1])
