"""The page of studies in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_studies import GENES, finalise, make_trial, random_trials
from playwright.sync_api import Browser, Page, expect, sync_playwright

from nas.core.errors import ConfigError, HwnasError
from nas.core.task import DETAILS
from nas.core.trial import Trial
from nas.results.ledger import Ledger
from nas.results.page.contents import progress
from nas.results.study import StudyResults
from nas.study.page import report, serve
from nas.tasks.classification import Classification

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

THREE = ("error", "latency_ms", "params_m")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Open an address; the page must not complain, nor ask for anything of elsewhere."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_page(address: str, width: int = 1280, scheme: Any = "light") -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: _check_address(asked.url, address, complaints))
        page.goto(address)
        page.wait_for_selector("#front .scatterlayer .point")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not complaints


def _check_address(url: str, address: str, complaints: list[str]) -> None:
    if not url.startswith((address.rpartition("/")[0], "data:", "blob:")):
        complaints.append(f"asked for {url}")


@pytest.fixture
def verified(study_folder: Callable[..., Path]) -> StudyResults:
    """A study of three objectives with a verified front of two."""
    trials = [
        sized(make_trial(k, error, latency_ms))
        for k, (error, latency_ms) in enumerate(((9.0, 3.0), (20.0, 1.0), (30.0, 2.0)))
    ]
    folder = study_folder(trials, objectives=THREE, status="finalised")
    finalise(folder, trials[0], measured_ms=3.1)
    finalise(folder, trials[1], measured_ms=0.9)
    return StudyResults(folder)


def sized(trial: Trial) -> Trial:
    """Return a trial with its number of parameters as an objective."""
    facts = dict(trial.facts)
    values = {**trial.values, "params_m": facts.pop("params_m")}
    return dataclasses.replace(trial, values=values, facts=facts)


def written(studies: list[StudyResults], folder: Path) -> str:
    path = folder / "report.html"
    report(studies, path)
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_it_fits_and_follows_the_theme(
    verified: StudyResults, opened: Callable[..., Page], tmp_path: Path, width: int, scheme: str
) -> None:
    page = opened(written([verified], tmp_path), width, scheme)
    page.locator("#members tbody tr").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"\d+", back)[:3]]
    assert all(level > 200 for level in levels) == (scheme == "light")
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != back


def test_a_point_says_what_it_is(
    verified: StudyResults, opened: Callable[..., Page], tmp_path: Path
) -> None:
    page = opened(written([verified], tmp_path))
    points = page.locator("#front .scatterlayer .trace").last.locator(".point")
    expect(points).to_have_count(2)
    point = points.first.bounding_box()
    assert point is not None
    x, y = point["x"] + point["width"] / 2, point["y"] + point["height"] / 2
    page.mouse.move(x, y)
    label = page.locator("#front .hoverlayer")
    expect(label).to_contain_text("000000000000")
    expect(label).to_contain_text("measured latency: 3.10 ± 0.06 ms")
    expect(label).to_contain_text("predicted latency: 3.00 ms")
    page.mouse.click(x, y)
    chosen = page.locator("#architecture")
    expect(chosen).to_be_visible()
    expect(chosen).to_contain_text(f"nas export {verified.path} --pick 000000000000")
    expect(chosen).to_contain_text("3.10 ± 0.06 ms")


def test_an_architecture_says_which_classes_it_mistakes(
    verified: StudyResults, opened: Callable[..., Page], tmp_path: Path
) -> None:
    matrix = np.array([[8, 1, 0], [3, 4, 2], [0, 0, 0]])
    names = ("<cat>", "dog", "emu")
    path = verified.path / "finalised" / "000000000000" / DETAILS
    details = Classification(class_names=names).details(np.c_[matrix, [1, 0, 0]])
    path.write_text(json.dumps(details))
    page = opened(written([verified], tmp_path))
    page.locator("#members tr[data-arch='000000000000']").click()
    rows = page.locator("#architecture table", has_text="recall (%)").locator("tbody tr")
    expect(rows).to_have_text([f"dog9{400 / 9:.2f}<cat> 3, emu 2", "<cat>1080.00dog 1", "emu0-"])
    cells = page.locator(".confusion tbody tr")
    expect(cells).to_have_text(["<cat>81", "dog342", "emu"])
    page.locator("#members tr[data-arch='000000000001']").click()
    expect(page.locator("#architecture")).not_to_contain_text("recall")
    path.write_text(json.dumps({**details, "confusion_matrix": [[1]]}))
    with pytest.raises(HwnasError, match=re.escape(str(path))):
        written([verified], tmp_path)


def test_rows_are_sorted_and_filtered(
    verified: StudyResults, opened: Callable[..., Page], tmp_path: Path
) -> None:
    page = opened(written([verified], tmp_path))
    rows, heading = page.locator("#members tbody tr"), page.locator("#members th")
    for order, first in (("ascending", "000000000001"), ("descending", "000000000000")):
        page.get_by_role("button", name=re.compile("^measured ms")).click()
        expect(heading.and_(page.locator(f"[aria-sort={order}]"))).to_have_count(1)
        expect(rows.first).to_contain_text(first)
    page.fill("#filter", "latency_ms < 2 and params_m <= 0.5")
    expect(rows).to_have_count(1)
    expect(page.locator("#front .scatterlayer .trace").last.locator(".point")).to_have_count(1)
    page.fill("#filter", "speed < 1")
    expect(page.locator("#filter-message")).to_contain_text("speed")
    expect(rows).to_have_count(1)
    page.fill("#filter", "")
    expect(rows).to_have_count(2)


def test_progress_counts_all_trials_in_the_order_in_which_they_ended(
    study_folder: Callable[..., Path],
) -> None:
    ended = ((0, 3.0, 20.0, None), (1, 1.0, 30.0, None), (2, 2.0, 0.0, "diverged"))
    trials = [
        dataclasses.replace(make_trial(k, error, 1.0, failure), ended_s=seconds)
        for k, seconds, error, failure in ended
    ]
    study = StudyResults(study_folder(trials))
    found = progress(study, study.trials())
    assert [(row["trials"], row["seconds"]) for row in found] == [(1, 1.0), (3, 3.0)]
    # Reference (100 %, 4 ms).
    assert [row["hypervolume"] for row in found] == pytest.approx([0.7 * 0.75, 0.8 * 0.75])


def test_what_is_drawn_is_chosen(
    verified: StudyResults, opened: Callable[..., Page], tmp_path: Path
) -> None:
    page = opened(written([verified], tmp_path))
    page.select_option("#x", "params_m")
    expect(page.locator("#front .xtitle")).to_contain_text("params")
    expect(page.locator("#parallel .scatterlayer .trace")).to_have_count(2)
    page.select_option("#over", "seconds")
    expect(page.locator("#progress .xtitle")).to_contain_text("minutes")


def test_studies_share_what_they_have_in_common(
    verified: StudyResults,
    study_folder: Callable[..., Path],
    opened: Callable[..., Page],
    tmp_path: Path,
) -> None:
    other = StudyResults(study_folder(random_trials(20), name="other"))
    page = opened(written([verified, other], tmp_path))
    expect(page.locator("#x option")).to_have_count(2)
    expect(page.locator("#members")).to_contain_text("other")
    few = [dataclasses.replace(t, values={"params_m": 1.0}, facts={}) for t in random_trials(3)]
    alone = StudyResults(study_folder(few, name="alone", objectives=("params_m",)))
    with pytest.raises(ConfigError, match="objectives of alone"):
        report([other, alone], tmp_path / "none.html")


def test_texts_of_a_study_are_no_markup(
    study_folder: Callable[..., Path], opened: Callable[..., Page], tmp_path: Path
) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    folder = study_folder(random_trials(9), name="<b>x", stop={"detail": hostile})
    page = opened(written([StudyResults(folder)], tmp_path))
    page.locator("#members tbody tr").first.click()
    expect(page.locator("h1")).to_have_text("<b>x")
    expect(page.locator("#facts")).to_contain_text(hostile)
    assert page.locator("img, b").count() == page.locator(".plot img, .plot b").count()


def test_a_served_page_follows_the_search(
    study_folder: Callable[..., Path],
    opened: Callable[..., Page],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nas.study.page.REFRESH_S", 0.2)
    trials = random_trials(12)
    study = StudyResults(study_folder(trials[:8]))
    ledger = Ledger.open(study.record["ledger_url"], "digits", ("error", "latency_ms"), GENES)
    with serve(lambda: [StudyResults(study.path)], 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        page = opened(address)
        expect(page.locator("#front .legend")).to_contain_text("trials of the search (7)")
        for trial in trials[8:]:
            ledger.append(trial)
        expect(page.locator("#front .legend")).to_contain_text("trials of the search (11)")
        record = study.path / "study.json"
        record.write_text(record.read_text().replace('"seed"', '"status": "searched", "seed"', 1))
        expect(page.locator("#facts")).to_contain_text("state: searched")
        for path, host in (("study.json", "localhost:1"), ("", "elsewhere.org:80")):
            asked = urllib.request.Request(f"{address}{path}", headers={"Host": host})
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(asked)
        page.close()
        server.shutdown()
