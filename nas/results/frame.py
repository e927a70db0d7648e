"""Trials as a table: one row a trial, one column a number, predicted and measured kept apart."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas.core.errors import HwnasError
from nas.core.files import json_values
from nas.core.objective import Constraint
from nas.core.trial import FULL, Trial
from nas.results.columns import MEASURED, VERIFIED

IDENTITY = (
    "number",
    "arch_id",
    "genotype",
    "status",
    "failure",
    "seed",
    "fidelity",
    "seconds",
    "ended_s",
)


def trials_frame(
    trials: Sequence[Trial],
    columns: Mapping[str, str],
    verified_columns: Mapping[str, str],
    constraints: Sequence[Constraint],
    verified: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, dict[str, float]] | None = None,
) -> pd.DataFrame:
    """Return the table of a study's trials.

    Args:
        trials: Of the ledger.
        columns: Column of every objective and of every limited value, by its name.
        verified_columns: The columns of the same in verified architectures.
        constraints: Of the study.
        verified: Records of the verified architectures, by `arch_id`.
        measured: Columns of architectures that were measured during the search, by `arch_id`.

    Returns:
        Columns `IDENTITY`, the objectives', the facts', `VERIFIED`, and two of truth values:
        `verified`, of a full training only, and `feasible`, whether a complete trial keeps all
        constraints, judged by values of `verified_columns` where there are any. A missing value is
        NaN.
    """
    measured = measured or {}
    added = {*VERIFIED, *verified_columns.values()} - set(columns.values())
    rows = [
        _row(trial, columns)
        | (measured.get(trial.arch_id, {}) if trial.complete else {})
        | (_chosen(verified.get(trial.arch_id, {}), added) if trial.complete and trial.full else {})
        for trial in trials
    ]
    known = [name for row in rows for name in row if name not in VERIFIED]
    of_verified = [*VERIFIED, *verified_columns.values()]
    names = list(dict.fromkeys([*IDENTITY, *columns.values(), *known, *of_verified]))
    frame = pd.DataFrame(rows, columns=names)
    numbers = [name for name in names if name not in IDENTITY]
    frame = frame.astype(dict.fromkeys([*numbers, "fidelity", "seconds", "ended_s"], "float64"))
    frame = frame.astype({"number": "int64", "seed": "int64"})
    frame["feasible"] = frame["status"] == "complete"
    full = frame["feasible"] & (frame["fidelity"] == FULL)
    frame["verified"] = frame["arch_id"].isin(list(verified)) & full
    for constraint in constraints:
        own = columns[constraint.objective]
        values = frame[verified_columns[constraint.objective]].fillna(frame[own])
        frame["feasible"] &= values.map(constraint.met).astype(bool)
    return frame


def read_verified(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a study's verified architectures, by `arch_id`.

    Args:
        folder: The study's folder.

    Raises:
        HwnasError: A record cannot be read; names the file.
    """
    found = {
        path.parent.name: read_json(path) for path in sorted(folder.glob("finalised/*/result.json"))
    }
    for arch_id, record in found.items():
        refitted = folder / "finalised" / "refit" / arch_id / "result.json"
        if refitted.is_file():
            record["error_test_refit"] = read_json(refitted)["error_test"]
    return found


def read_measured_candidates(path: Path) -> dict[str, dict[str, float]]:
    """Return the columns of the architectures that a search measured, by `arch_id`.

    What is predicted of them is what was predicted once the predictor had learned from them.

    Args:
        path: The study's `adaptive_measurement.json`; need not exist.

    Raises:
        HwnasError: The file cannot be read.
    """
    rows = read_json(path)["measured"] if path.is_file() else []
    return {row["arch_id"]: row["columns"] for row in rows if row["columns"]}


def read_json(path: Path) -> dict[str, Any]:
    """Return the record in the JSON file `path`.

    Raises:
        HwnasError: The file is missing, cannot be read or holds something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HwnasError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise HwnasError(f"{path}: is not JSON ({error}); restore it from a copy") from error
    if not isinstance(record, dict):
        raise HwnasError(f"{path}: got {type(record).__name__}, expected a JSON object")
    return record


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain JSON values: no NaN (`None`), no tuples, no NumPy."""
    found: list[dict[str, Any]] = json_values(frame.to_dict("records"))
    return found


def _row(trial: Trial, columns: Mapping[str, str]) -> dict[str, Any]:
    values = {columns[name]: value for name, value in trial.values.items()}
    # A fact may bear the name of a column that is kept for verified values: it is a prediction.
    facts = {
        f"{name}_predicted" if name in VERIFIED and name not in MEASURED else name: value
        for name, value in trial.facts.items()
    }
    return {
        "number": trial.number,
        "arch_id": trial.arch_id,
        "genotype": trial.genotype,
        "status": "complete" if trial.complete else "failed",
        "failure": trial.failure,
        "seed": trial.seed,
        "fidelity": trial.fidelity,
        "seconds": trial.seconds,
        "ended_s": trial.ended_s,
        **facts,
        **values,
    }


def _chosen(record: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name in names}
