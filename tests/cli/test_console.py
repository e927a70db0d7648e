"""What a study shows while it runs, on a terminal and elsewhere."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from nas_command import Ended, Finished, wait_until
from PIL import Image
from rich.console import Console

import latency_predictors
from nas.cli.search import next_command
from nas.core.trial import Trial
from nas.results.study import StudyResults
from nas.search.stopping import StopSettings
from nas.study import reporting
from nas.study.recorded_space import recorded_space
from nas.study.reporting import NotebookBar, Reporter, SearchPlan

PLAN = SearchPlan(
    evaluations=4,
    stop=StopSettings(),
    recorded=(),
    simulated=False,
    workers=2,
    lookahead=8,
    columns={"error": "error", "latency_ms": "latency_ms_predicted"},
    trained={"error": "%"},
    reference_point={"error": 100.0, "latency_ms": 2.0},
)


def trial(number: int, error: float, latency_ms: float = 1.0, failure: str | None = None) -> Trial:
    return Trial(
        number=number,
        genotype=(0,),
        arch_id=f"{number:012x}",
        seed=0,
        values={} if failure else {"error": error, "latency_ms": latency_ms},
        seconds=200.0,
        failure=failure,
    )


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return what is printed where there is no terminal."""
    file = io.StringIO()
    monkeypatch.setattr(reporting, "console", lambda: Console(file=file, width=250))
    return lambda: file.getvalue().splitlines()


def test_a_line_says_what_came_out_and_how_it_stands(printed: Callable[[], list[str]]) -> None:
    reporter = Reporter()
    with reporter.search(PLAN):
        reporter.trial(trial(0, 40.0), feasible=True)
        reporter.trial(trial(1, 0.0, failure="diverged: loss is nan"), feasible=False)
        # Breaks a constraint, so it is neither best nor does it add to the hypervolume.
        reporter.trial(trial(2, 1.0), feasible=False)
        reporter.trial(trial(3, 20.0), feasible=True)
    begin, *lines = (line.split("] ", 1)[1] for line in printed())
    assert begin == "evaluating 4 architectures on 2 workers"
    # By hand: (100 - 40) * (2 - 1) and (100 - 20) * (2 - 1); 200 s each on two workers.
    assert lines == [
        "1/4 000000000000 error 40, latency_ms_predicted 1 "
        "| best error 40.00 %, hypervolume 60, 5 min left",
        "2/4 000000000001 failed: diverged: loss is nan "
        "| best error 40.00 %, hypervolume 60, 3 min left",
        "3/4 000000000002 error 1, latency_ms_predicted 1 "
        "| best error 40.00 %, hypervolume 60, 2 min left",
        "4/4 000000000003 error 20, latency_ms_predicted 1 | best error 20.00 %, hypervolume 80",
    ]


def test_trials_of_an_earlier_run_are_counted_and_not_repeated(
    printed: Callable[[], list[str]],
) -> None:
    reporter = Reporter()
    with reporter.search(
        SearchPlan(**{**vars(PLAN), "recorded": (trial(0, 40.0),), "workers": 9, "lookahead": 2})
    ):
        reporter.trial(trial(0, 40.0), feasible=True)
        reporter.trial(trial(1, 50.0), feasible=True)
    begin, line = (line.split("] ", 1)[1] for line in printed())
    assert begin == (
        "in the ledger: 1 architecture; evaluating 3 architectures on 9 workers; "
        "7 workers will idle: raise search.lookahead under another name"
    )
    assert line.startswith("2/4 000000000001 ")
    assert "best error 40.00 %" in line


def test_a_limit_of_time_says_how_much_is_left(printed: Callable[[], list[str]]) -> None:
    reporter = Reporter()
    limit = StopSettings(wall_clock_s=240.0)
    with reporter.search(dataclasses.replace(PLAN, evaluations=1000, stop=limit)):
        reporter.trial(dataclasses.replace(trial(0, 40.0), ended_s=120.0), feasible=True)
    assert printed()[-1].endswith("2 min left")


def test_a_partial_training_counts_as_its_share(printed: Callable[[], list[str]]) -> None:
    reporter = Reporter()
    with reporter.search(PLAN):
        reporter.trial(dataclasses.replace(trial(0, 1.0), fidelity=0.25), feasible=True)
        reporter.trial(dataclasses.replace(trial(0, 40.0), number=1), feasible=True)
    first, second = (line.split("] ", 1)[1] for line in printed()[1:])
    assert first == (
        "0.25/4 000000000000 error 1, latency_ms_predicted 1 after 25 % of the training "
        "| 25 min left"
    )
    assert second.startswith("1/4 000000000000 error 40, latency_ms_predicted 1 | best error 40")


def test_a_long_line_does_not_wrap(printed: Callable[[], list[str]]) -> None:
    Reporter().stage("word " * 200)
    assert len(printed()) == 1


def test_an_empty_front_is_told(
    finished: Finished, here: Callable[..., Ended], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "runs" / "small"))
    record = (folder / "study.json").read_text()
    assert '"constraints": []' in record
    limited = record.replace('"constraints": []', '"constraints": ["latency_ms <= 1e-9"]')
    (folder / "study.json").write_text(limited)
    assert StudyResults(folder).pareto().empty
    shown = here("pareto", "small")
    assert shown.returncode == 0
    assert "no architecture is left; constraints: latency_ms <= 1e-09" in shown.stdout
    assert here("export", "small").stderr.startswith("nas: architecture: got 'knee'")


def test_several_fronts_are_printed_and_drawn(
    finished: Finished, here: Callable[..., Ended], tmp_path: Path
) -> None:
    for name in ("first", "second"):
        shutil.copytree(finished.folder, tmp_path / "runs" / name)
    shown = here("pareto", "first", "second", "--out", "fronts.png")
    assert shown.returncode == 0, shown.stderr
    assert all(f"{name}: Pareto front (verified)" in shown.stdout for name in ("first", "second"))
    assert shown.stdout.endswith("fronts.png\n")
    with Image.open(tmp_path / "fronts.png") as image:
        assert image.size == (1200, 750)
    rows = json.loads(here("pareto", "first", "second", "--json").stdout)
    for file, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        assert here("pareto", "first", "second", "--out", file).returncode == 0
        table = read(tmp_path / file)
        assert table["study"].tolist() == [row["study"] for row in rows]
        assert table["arch_id"].astype(str).tolist() == [row["arch_id"] for row in rows]
        assert table["error_final"].tolist() == [row["error_final"] for row in rows]
        assert [json.loads(g) for g in table["genotype"]] == [row["genotype"] for row in rows]
    assert here("pareto", "first", "--out", "a.md").returncode == 0
    lines = (tmp_path / "a.md").read_text().splitlines()
    assert len(lines) == 2 + len(finished.study.pareto())
    assert len({line.count("|") for line in lines}) == 1
    refused = here("pareto", "first", "--out", "a.bmp")
    assert ".parquet" in refused.stderr
    front = len(finished.study.pareto())
    assert [row["study"] for row in rows] == ["first"] * front + ["second"] * front
    elsewhere = shutil.copytree(finished.folder, tmp_path / "elsewhere" / "first")
    twice = json.loads(here("pareto", "first", str(elsewhere), "--json").stdout)
    assert len({row["study"] for row in twice}) == 2
    refused = here("pareto", "first", "--out", "x.png", "--objectives", "params_m,error")
    assert refused.returncode == 2
    assert "--out" in refused.stderr


def test_the_next_command_is_quoted(finished: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(finished.folder, tmp_path / "my runs" / "small")
    command = next_command(StudyResults(Path(folder)))
    said = shlex.split(command)
    assert said == ["nas", "export", "small", "--pick", "knee", "--runs", f"{tmp_path}/my runs"]


def test_a_condition_that_nothing_meets_says_what_there_is(
    finished: Finished, here: Callable[..., Ended]
) -> None:
    runs = f"--runs={finished.folder.parent}"
    shown = here("pareto", "small", runs, "--where", "latency_ms_measured < 1e-9 and params_m > 0")
    assert shown.returncode == 0
    [line] = shown.stdout.splitlines()
    assert "latency_ms_measured < 1e-9 and params_m > 0" in line
    least = finished.study.pareto()["latency_ms_measured"].min()
    assert f"latency_ms_measured is {least:.4g} to" in line
    assert here("pareto", "small", runs, "--where", "params_m < 0", "--json").stdout == "[]\n"


def test_a_terminal_shows_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    terminal = Console(file=file, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(reporting, "console", lambda: terminal)
    reporter = Reporter()
    with reporter.search(PLAN):
        reporter.trial(trial(0, 40.0), feasible=True)
        reporter.trial(trial(1, 20.0), feasible=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    last = [line for line in re.split(r"[\r\n]+", plain) if line.startswith("search ")][-1]
    assert len(last) <= 80
    for part in ("2/4", "best error 20.00 %", "hypervolume 80", "3 min left"):
        assert part in last
    # Trials have no lines of their own there.
    assert "] 1/4 " not in plain


def test_a_silent_stage_says_how_far_it_is(
    printed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "SILENT_S", 0.05)
    reporter = Reporter()
    with reporter.progress("calibration", 40) as show:
        wait_until(lambda: len(printed()) >= 1)
        show(10)
        wait_until(lambda: any("calibration: 10/40" in line for line in printed()))
        assert any("left" in line for line in printed() if "10/40" in line)
    with reporter.progress("preparation", None):
        wait_until(lambda: any("preparation: after" in line for line in printed()))
    count = len(printed())
    time.sleep(0.2)
    assert len(printed()) == count, "a stage that has ended is silent"


def test_lines_of_a_stage_take_the_place_of_its_progress(
    printed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "SILENT_S", 30.0)
    reporter = Reporter()
    with reporter.progress("training", 2) as show:
        reporter.stage("1/2 trained")
        show(1)
    assert len(printed()) == 1


def test_every_stage_has_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    terminal = Console(file=file, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(reporting, "console", lambda: terminal)
    with Reporter().progress("calibration", 40) as show:
        show(10)
    assert "calibration" in file.getvalue()
    assert "10/40" in file.getvalue()


NOTEBOOK = """
import sys
sys.path[:0] = {paths}
from test_console import PLAN, Reporter, trial
reporter = Reporter()
with reporter.search(PLAN):
    reporter.trial(trial(0, 40.0), feasible=True)
    reporter.trial(trial(1, 20.0), feasible=True)
with reporter.progress("preparation", None) as show:
    show(3)
"""


def test_a_notebook_shows_one_live_bar(tmp_path: Path) -> None:
    nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
    pytest.importorskip("ipykernel")
    code = NOTEBOOK.format(paths=[str(Path(__file__).parent), *sys.path])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    shown = [output["data"] for output in notebook.cells[0].outputs]
    [bar] = [data for data in shown if data["text/plain"].startswith("search")]
    assert '<progress value="2" max="4"></progress> search 2/4 best error' in bar["text/html"]
    for part in ("best error 20.00 %", "hypervolume 80", "3 min left", "after "):
        assert part in bar["text/plain"]
    assert "evaluating 4 architectures" in shown[0]["text/plain"]
    # Neither a line of a trial, nor a bar that goes on after its stage.
    assert len(shown) == 3
    assert 'value="1" max="1"' in shown[2]["text/html"]


def test_a_bar_in_a_notebook_is_text_and_html() -> None:
    bar = NotebookBar(what="<search>", done=12.5, total=48, text="3 min left")
    assert repr(bar) == "<search> 12.5/48 3 min left"
    written = ElementTree.fromstring(f"<p>{bar._repr_html_()}</p>")
    [element] = written
    assert (element.tag, element.attrib) == ("progress", {"value": "12.5", "max": "48"})
    assert (element.tail or "").strip() == repr(bar)
    [element] = ElementTree.fromstring(
        f"<p>{NotebookBar(what='data', done=3, total=None)._repr_html_()}</p>"
    )
    assert not element.attrib


def test_changes_of_an_architecture_are_explained(
    finished: Finished, here: Callable[..., Ended]
) -> None:
    study, runs = finished.study, f"--runs={finished.folder.parent}"
    ended = here("explain", "small", runs, "--pick", "best", "--json")
    assert ended.returncode == 0, ended.stderr
    rows, own = json.loads(ended.stdout), study.pick("best")
    space = recorded_space(study, allow_imports=False)
    neighbours = space.neighbours(own["genotype"])
    assert len(rows) == len(neighbours)
    predictor = latency_predictors.load(study.path / "predictor")
    predicted_ms = predictor.predict(neighbours).mean_ms
    assert sorted(row["latency_ms_predicted"] for row in rows) == pytest.approx(
        sorted(predicted_ms)
    )
    [now_ms] = predictor.predict([own["genotype"]]).mean_ms
    for row in rows:
        change = row["latency_ms_predicted"] - now_ms
        assert row["latency_ms_predicted_change"] == pytest.approx(change)
        assert row["error_change"] == pytest.approx(row["error"] - own["error"])
        assert row["tried"] == (row["error_std"] == 0)
    assert [row["error_change"] for row in rows] == sorted(row["error_change"] for row in rows)
    shown = here("explain", "small", runs, "--pick", own["arch_id"])
    others = study.trials()["arch_id"].nunique() - 1
    assert shown.stdout.splitlines()[-1].startswith(f"{own['arch_id']}: ")
    assert f"of {others} others" in shown.stdout
    assert "±" in shown.stdout
