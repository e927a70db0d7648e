"""Made-up trials, written by the real ledger and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.core.files import write_json_atomically
from nas.core.space import Gene
from nas.core.trial import Trial
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger

GENES = (
    Gene("depth", (1, 2, 3, 4)),
    Gene("kernel", (3, 5, 7)),
    Gene("op", ("conv", "mbconv"), ordinal=False),
    Gene("skip", (False, True)),
)
COLUMNS = {"error": "error", "latency_ms": "latency_ms_predicted", "params_m": "params_m"}
VERIFIED_COLUMNS = {
    "error": "error_final",
    "latency_ms": "latency_ms_measured",
    "params_m": "params_m",
}
TASK = {"name": "classification", "metrics": [{"name": "error", "unit": "%"}]}
REFERENCE = {"error": 100.0, "latency_ms": 4.0, "params_m": 2.0}


def make_trial(number: int, error: float, latency_ms: float, failure: str | None = None) -> Trial:
    values = {} if failure else {"error": error, "latency_ms": latency_ms}
    return Trial(
        number=number,
        genotype=(number % 4, number % 3, number % 2, number % 2),
        arch_id=f"{number:012x}",
        seed=number + 7,
        values=values,
        facts={"params_m": 0.1 * (number + 1), "macs_m": 3.5, "latency_ms_predicted_std": 0.02},
        seconds=1.5,
        failure=failure,
    )


def random_trials(n: int, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    latency = rng.uniform(0.3, 3.0, n)
    error = 6 + 9 / (latency + 0.25) + rng.gamma(1.6, 3.0, n)
    causes = ["diverged: loss is NaN" if number % 17 == 5 else None for number in range(n)]
    return [
        make_trial(k, float(e), float(x), cause)
        for k, (e, x, cause) in enumerate(zip(error, latency, causes, strict=True))
    ]


def write_study(
    folder: Path,
    trials: list[Trial],
    objectives: tuple[str, ...] = ("error", "latency_ms"),
    **more: object,
) -> Path:
    """Write what a search leaves: `study.json` and a real ledger."""
    folder.mkdir(parents=True)
    url = sqlite_url(folder / "ledger.db")
    record = {
        "name": folder.name,
        "created_utc": "2030-01-02T03:04:05Z",
        "seed": 0,
        "task": TASK,
        "objectives": list(objectives),
        "columns": {name: COLUMNS[name] for name in objectives},
        "verified_columns": {name: VERIFIED_COLUMNS[name] for name in objectives},
        "constraints": [],
        "reference_point": {name: REFERENCE[name] for name in objectives},
        "genes": [gene.name for gene in GENES],
        "device": {"name": "cpu", "threads": 1},
        "ledger_url": url,
        **more,
    }
    write_json_atomically(folder / "study.json", record)
    ledger = Ledger.open(url, folder.name, objectives, GENES)
    for trial in trials:
        ledger.append(trial)
    return folder


def finalise(
    folder: Path,
    trial: Trial,
    *,
    measured_ms: float,
    error_final: float | None = None,
    error_test: float = 12.0,
) -> None:
    """Write what the finalising of one architecture leaves; its error is that of the search."""
    target = folder / "finalised" / trial.arch_id
    target.mkdir(parents=True, exist_ok=True)
    record = {
        "arch_id": trial.arch_id,
        "number": trial.number,
        "error_final": trial.values["error"] if error_final is None else error_final,
        "error_test": error_test,
        "latency_ms_measured": measured_ms,
        "latency_ms_measured_ci": 0.02 * measured_ms,
        "latency_ms_median": 1.1 * measured_ms,
        "latency_ms_p95": 1.4 * measured_ms,
        "peak_memory_mb_measured": 3.25,
        "model_size_mb": 0.5,
        "seconds": 20.0,
    }
    write_json_atomically(target / "result.json", record)
