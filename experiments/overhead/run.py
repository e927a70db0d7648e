"""How much longer a search takes than the trainings in it, and what the ledger costs per trial.

Run `python experiments/overhead/run.py` on a machine that does nothing else. It writes
`results.json` beside this file.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import search_spaces
from nas import results
from nas.core.files import write_json_atomically
from nas.core.trial import Trial
from nas.devices.measuring.environment import describe_host
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.study.composition import compose
from nas.study.reading import read
from nas.study.record import versions
from nas.study.reporting import Reporter, SearchPlan
from nas.study.run import run

EVALUATIONS = 48
RECIPE_EPOCHS = 100
SHORTEST_S = 10.0
"""Candidates are trained for at least so long; the experiment stops if one is not."""

LEDGER_SIZES = (1, 100, 1000)
LEDGER_REPEATS = 20


class Stopwatch(Reporter):
    """A reporter that times the search and stays silent."""

    def __init__(self) -> None:
        super().__init__()
        self.search_s = 0.0
        self.workers = 0
        self.trials: list[Trial] = []

    def stage(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    @contextlib.contextmanager
    def search(self, plan: SearchPlan) -> Iterator[None]:
        """Time the block."""
        self.workers = plan.workers
        started = time.monotonic()
        yield
        self.search_s = time.monotonic() - started

    def trial(self, trial: Trial, *, feasible: bool) -> None:
        """Keep a trial."""
        del feasible
        self.trials.append(trial)
        print(f"{len(self.trials)}/{EVALUATIONS} {trial.seconds:.1f} s", flush=True)


def search_overhead(runs: Path) -> dict[str, Any]:
    """Run one search and compare its wall time with the seconds of its trainings."""
    overrides = [
        "experiment=quickstart",
        f"runs={runs}",
        f"search.evaluations={EVALUATIONS}",
        f"evaluation.recipe.epochs={RECIPE_EPOCHS}",
        "search_space.widths=[1.0]",
        "search_space.resolutions=[12]",
        "latency_predictor.samples=8",
        "search.adaptive_measurement.measurements=0",  # a measurement is no overhead of the search
        "finalise.limit=0",
    ]
    settings = read(compose(overrides))
    stopwatch = Stopwatch()
    run(settings, stopwatch)
    seconds = [trial.seconds for trial in stopwatch.trials]
    if min(seconds) < SHORTEST_S:
        raise SystemExit(f"a candidate took {min(seconds):.1f} s: raise RECIPE_EPOCHS")
    ideal = sum(seconds) / stopwatch.workers
    return {
        "workers": stopwatch.workers,
        "candidates": len(seconds),
        "candidate_s_min_median_max": [min(seconds), statistics.median(seconds), max(seconds)],
        "search_wall_s": stopwatch.search_s,
        "training_s_per_worker": ideal,
        "ratio": stopwatch.search_s / ideal,
    }


def ledger_cost(runs: Path) -> dict[str, Any]:
    """Time appending the recorded trials to a fresh SQLite ledger, at several sizes of it."""
    study = results.open_study("quickstart", runs)
    space = search_spaces.get(**study.record["space"])
    source = Ledger.load(study.record["ledger_url"], study.name)
    example = source.trials()[0]
    ledger = Ledger.open(sqlite_url(runs / "cost.db"), "cost", list(example.values), space.genes)
    costs: dict[str, Any] = {"genes": len(space.genes)}
    number = 0
    for size in LEDGER_SIZES:
        while number < size:
            ledger.append(_numbered(example, number))
            number += 1
        times_ms = []
        for _ in range(LEDGER_REPEATS):
            started = time.perf_counter()
            ledger.append(_numbered(example, number))
            times_ms.append(1e3 * (time.perf_counter() - started))
            number += 1
        quartiles = statistics.quantiles(times_ms, n=4)
        costs[f"append_ms_at_{size}_trials_quartiles"] = quartiles
    return costs


def _numbered(trial: Trial, number: int) -> Trial:
    fields = {name: getattr(trial, name) for name in trial.__dataclass_fields__}
    return Trial(**(fields | {"number": number, "arch_id": f"{number:012x}"}))


def main() -> None:
    """Run both parts and write `results.json`."""
    with tempfile.TemporaryDirectory() as folder:
        record = {
            "search": search_overhead(Path(folder)),
            "ledger": ledger_cost(Path(folder)),
            "versions": versions(),
            "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
        }
    write_json_atomically(Path(__file__).with_name("results.json"), record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
