"""What a ledger costs at several sizes: appending a trial, and the commands that read it.

    python experiments/overhead/ledger.py
    python experiments/overhead/ledger.py --against PATH   # of another checkout of this repository

Commands are timed as whole processes, start included, those of the two checkouts in turn. Processor
seconds are counted beside the wall time, as other work on the machine changes them less. The last
figures say what the disk takes: a bare fsync, and a commit of one row by SQLite. It writes
`ledger.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import search_spaces
from nas.core.files import write_json_atomically
from nas.core.trial import Trial
from nas.devices.measuring.environment import describe_host, load_average
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.study.record import versions

HERE = Path(__file__).resolve()
SIZES = (100, 1_000, 5_000, 10_000)
APPENDED = 30
OBJECTIVES = ("error", "latency_ms")

APPEND = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import ledger
print(json.dumps(ledger.appending(sys.argv[2], int(sys.argv[3]))))
"""


def made_up(first: int, n: int) -> list[Trial]:
    """Return trials of the MobileNet space with made-up errors and latencies."""
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    rng = np.random.default_rng(first)
    latency = rng.uniform(0.3, 3.0, n)
    error = 6 + 9 / (latency + 0.25) + rng.gamma(1.6, 3.0, n)
    facts = {"params_m": 1.0, "macs_m": 30.0, "latency_ms_predicted_std": 0.02}
    return [
        Trial(
            number=first + i,
            genotype=tuple(row),
            arch_id=f"{first + i:012x}",
            seed=first + i,
            values={"error": float(error[i]), "latency_ms": float(latency[i])},
            facts=facts,
            seconds=60.0,
            ended_s=60.0 * (first + i),
        )
        for i, row in enumerate(space.samples(n, rng).tolist())
    ]


def write_study(folder: Path, trials: list[Trial]) -> None:
    """Write what a search leaves: `study.json` and a ledger."""
    folder.mkdir(parents=True)
    url = sqlite_url(folder / "ledger.db")
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    columns = {"error": "error", "latency_ms": "latency_ms_predicted"}
    record = {
        "name": folder.name,
        "created_utc": "2030-01-02T03:04:05Z",
        "task": {"name": "classification", "metrics": [{"name": "error", "unit": "%"}]},
        "objectives": list(OBJECTIVES),
        "columns": columns,
        "space": search_spaces.registry.settings(space),
        "genes": [gene.name for gene in space.genes],
        "verified_columns": {"error": "error_final", "latency_ms": "latency_ms_measured"},
        "constraints": [],
        "reference_point": {"error": 100.0, "latency_ms": 4.0},
        "device": {"name": "cpu", "threads": 1},
        "ledger_url": url,
    }
    write_json_atomically(folder / "study.json", record)
    Ledger.open(url, folder.name, OBJECTIVES, space.genes).append(*trials)


def appending(url: str, size: int) -> dict[str, Any]:
    """Time appending trials one by one to a ledger of `size` trials, in this process."""
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    name = Path(url).parent.name
    ledger = Ledger.open(url, name, OBJECTIVES, space.genes)
    wall_ms, cpu_ms = [], []
    for trial in made_up(size, APPENDED):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        ledger.append(trial)
        wall_ms.append(1e3 * (time.perf_counter() - began_s))
        cpu_ms.append(1e3 * (time.process_time() - began_cpu_s))
    return {"wall_ms": wall_ms, "cpu_ms": cpu_ms}


def command(checkout: Path, *arguments: str) -> dict[str, float]:
    """Run a process of a checkout; return its wall seconds and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    line = [sys.executable, "-m", "nas.cli.main", *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=checkout)
    wall_s = time.perf_counter() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s}


def append_in(checkout: Path, url: str, size: int) -> dict[str, list[float]]:
    """Append with the code of a checkout, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    line = [sys.executable, "-c", APPEND, str(HERE.parent), url, str(size)]
    said = subprocess.run(
        line, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    ).stdout
    found: dict[str, list[float]] = json.loads(said.splitlines()[-1])
    return found


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every key, and the least."""
    of = {key: [row[key] for row in rows] for key in rows[0]}
    least = {f"{key}_least": min(values) for key, values in of.items()}
    return {key: statistics.median(values) for key, values in of.items()} | least


def disk(folder: Path) -> dict[str, float]:
    """Return the milliseconds of an fsync of 4 KiB, and of a commit of one row, medians of 50."""

    def timed(write: Callable[[], object]) -> float:
        took_ms = []
        for _ in range(50):
            began_s = time.perf_counter()
            write()
            took_ms.append(1e3 * (time.perf_counter() - began_s))
        return statistics.median(took_ms)

    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:

        def sync() -> None:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())

        fsync_ms = timed(sync)
    database = sqlite3.connect(folder / "plain.db")
    database.execute("CREATE TABLE numbers (number INTEGER)")

    def commit() -> None:
        database.execute("INSERT INTO numbers VALUES (1)")
        database.commit()

    commit_ms = timed(commit)
    database.close()
    return {"fsync_ms": fsync_ms, "sqlite_commit_ms": commit_ms}


def main() -> None:
    """Measure every size and write `ledger.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="checkout to compare with")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=5, help="of every command")
    parsed = parser.parse_args()
    checkouts = {"now": HERE.parents[2]}
    if parsed.against is not None:
        checkouts["before"] = parsed.against.resolve()
    record: dict[str, Any] = {"repeats": parsed.repeats, "load_before": load_average(), "sizes": {}}
    with tempfile.TemporaryDirectory() as name:
        for size in parsed.sizes:
            runs = Path(name) / str(size)
            study = f"of{size}"
            write_study(runs / study, made_up(0, size))
            rows: dict[str, dict[str, list[dict[str, float]]]] = {}
            for _ in range(parsed.repeats):
                for label, checkout in checkouts.items():
                    into = rows.setdefault(label, {})
                    at, page = ("--runs", str(runs)), str(Path(name) / "report.html")
                    for what, arguments in {
                        "help": ("--help",),
                        "pareto": ("pareto", study, *at),
                        "studies": ("studies", "--json", *at),
                        "report": ("report", study, *at, "--out", page),
                    }.items():
                        into.setdefault(what, []).append(command(checkout, *arguments))
            found: dict[str, Any] = {
                label: {key: medians(measured) for key, measured in of_one.items()}
                for label, of_one in rows.items()
            }
            url = sqlite_url(runs / study / "ledger.db")
            for label, checkout in checkouts.items():
                began = len(Ledger.load(url, study).trials())
                took = append_in(checkout, url, began)
                found[label]["append"] = {k: statistics.quantiles(v, n=4) for k, v in took.items()}
            record["sizes"][size] = found | {"disk": disk(Path(name) / str(size))}
            sys.stdout.write(json.dumps({size: record["sizes"][size]}, indent=2) + "\n")
    record |= {
        "load_after": load_average(),
        "versions": versions(),
        "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
    }
    write_json_atomically(HERE.with_name("ledger.json"), record)


if __name__ == "__main__":
    main()
