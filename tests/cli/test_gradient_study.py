"""Searches by gradients through the `nas` command, on real workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nas_command import SMALL, Ended

from nas.cluster.connection import connected
from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

Here = Callable[..., Ended]
OF_GUIDED = "search.algorithm.initial"
SEARCH = (
    *(text for text in SMALL if not text.startswith(OF_GUIDED)),
    "search=gradient",
    "search.objectives=[error,params_m]",
    "search.algorithm.targets=3",
    "search.algorithm.epochs=4",
    "search.evaluations=3",
    "finalise.limit=1",
)


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    with connected(None):
        yield


def test_a_front_is_found_and_verified(here: Here, tmp_path: Path):
    of_latency = (*SEARCH, "search.objectives=[error,latency_ms]")
    ended = here("search", *of_latency)
    assert ended.returncode == 0, ended.stderr
    study = StudyResults(tmp_path / "runs" / "small")
    trials = study.trials()
    assert 1 <= len(trials) <= 3
    assert study.pareto()["verified"].any()
    file = tmp_path / "runs" / "small" / "prepared" / "relaxed.json"
    found = json.loads(file.read_text())["found"]
    costs = sorted(row["cost"] for row in found.values())
    assert costs[0] < costs[-1]
    assert study.record["relaxed_seconds"] > 0
    # What lies in the folder is not trained again, and the search is replayed.
    file.write_text(json.dumps({"found": dict(list(found.items())[:2])}))
    again = here("search", *of_latency, "finalise.limit=2")
    assert again.returncode == 0, again.stderr
    assert "are trained: 1," in again.stdout
    assert list(study.trials()["arch_id"]) == list(trials["arch_id"])


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("search.algorithm.target_values=[900]", "search.algorithm.target_values: got 900"),
        ("search.algorithm.cost=latency_ms", "search.algorithm.cost: got 'latency_ms'"),
        ("search.algorithm.relaxation=mixed", "search.algorithm.relaxation: got 'mixed'"),
        ("search.algorithm.relaxation=soft", "search.algorithm.relaxation: got 'soft'"),
        ("search.algorithm.order=2", "search.algorithm.order: got 2"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(here: Here, setting: str, line: str):
    """Without a choice of activations there are sizes only, which cannot be mixed."""
    ended = here("search", *SEARCH, "search_space.activations=[relu6]", setting)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"nas: {line}"), ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_table_has_nothing_to_train(here: Here):
    ended = here("search", "experiment=nasbench201", "search=gradient")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
