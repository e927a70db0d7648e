"""What is said of a search before it begins."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from nas_command import SMALL, Ended, Finished

Here = Callable[..., Ended]
COUNTED = (*SMALL, "search.objectives=[error,params_m]")


def test_check_says_what_is_reachable_and_leaves_nothing_behind(here: Here, tmp_path: Path) -> None:
    ended = here("search", "--check", *COUNTED, 'search.constraints=["params_m <= 0.01"]')
    assert ended.returncode == 0, ended.stderr
    share = re.search(r"([0-9.]+) % of 1000 random architectures keep every limit", ended.stdout)
    assert share is not None
    assert 0 < float(share[1]) < 100
    assert "params_m: reaches from 0.00" in ended.stdout
    assert "error: known after training only" in ended.stdout
    assert re.search(
        r"about .* in all: .* of search \(6 candidates of .* on .* worker", ended.stdout
    )
    assert "each alone on this host" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_check_names_the_nearest_values_where_limits_cannot_be_kept(here: Here) -> None:
    limits = 'search.constraints=["params_m <= 0.0001","latency_ms <= 1"]'
    ended = here("search", "--check", *COUNTED, limits)
    assert ended.returncode == 2
    assert "params_m <= 0.0001: kept by 0 %" in ended.stdout
    assert "latency_ms <= 1: cannot be judged before the device is calibrated" in ended.stdout
    assert "that would measure 4 networks" in ended.stdout
    assert ended.stderr.count("\n") == 1
    assert "nearest values seen: params_m 0.00" in ended.stderr


@pytest.mark.slow
def test_check_of_a_study_that_has_begun(here: Here, finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "runs" / "small")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = here("search", "--check", *SMALL, "search.evaluations=10")
    assert ended.returncode == 0, ended.stderr
    # Its own calibration and its own trials are there to be used.
    assert "latency_ms: reaches from" in ended.stdout
    assert "of search (4 candidates" in ended.stdout
    assert "mean of 6 trials so far" in ended.stdout
    changed = here("search", "--check", *SMALL, "search.algorithm.initial=3")
    assert changed.stderr.startswith("nas: search.algorithm.initial: got 3")
    assert {path: path.read_bytes() for path in before} == before


def test_every_start_says_what_is_reachable(finished: Finished) -> None:
    assert "latency_ms: reaches from" in finished.printed
    assert re.search(
        r"about .* in all: .* of search \(6 candidates of .* on .*worker", finished.printed
    )
    assert "of verification (at most 2 networks" in finished.printed
    assert "the search has ended: 6 evaluations" in finished.printed
    stop = finished.study.record["stop"]
    assert (stop["by"], stop["limits"]["evaluations"]) == ("evaluations", 6)
