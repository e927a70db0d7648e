"""Trials as a table: one row a trial, one column a number, predicted and measured kept apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    folder: Path,
    record: Mapping[str, Any],
    trials: Sequence[Trial],
    constraints: Sequence[Constraint],
) -> pd.DataFrame:
    """Return the table of a study's trials.

    Args:
        folder: The study's, with what was verified and what was measured in the search.
        record: Its `study.json`: the column of every objective and of every limited value.
        trials: Of the ledger.
        constraints: Of the study.

    Returns:
        Columns `IDENTITY`, the objectives', the facts', `VERIFIED`, and two of truth values:
        `verified`, of a full training only, and `feasible`, whether a complete trial keeps all
        constraints, judged by values of `verified_columns` where there are any. A missing value is
        NaN.

    Raises:
        HwnasError: The record of a verified architecture, or of those measured, cannot be read.
    """
    columns, verified_columns = record["columns"], record["verified_columns"]
    verified, measured = _read_verified(folder), _read_measured(folder)
    of_verified = list(dict.fromkeys([*VERIFIED, *verified_columns.values()]))
    rows = []
    for trial in trials:
        row = _row(trial, columns)
        if trial.complete:
            row |= measured.get(trial.arch_id, {})
        if trial.complete and trial.full:
            known = verified.get(trial.arch_id, {})
            added = set(of_verified) - set(columns.values())
            row |= {name: value for name, value in known.items() if name in added}
        rows.append(row)
    facts = [name for row in rows for name in row if name not in VERIFIED]
    names = list(dict.fromkeys([*IDENTITY, *columns.values(), *facts, *of_verified]))
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


def _read_verified(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a study's verified architectures, by `arch_id`."""
    found = {
        path.parent.name: read_json(path) for path in sorted(folder.glob("finalised/*/result.json"))
    }
    for arch_id, record in found.items():
        refitted = folder / "finalised" / "refit" / arch_id / "result.json"
        if refitted.is_file():
            record["error_test_refit"] = read_json(refitted)["error_test"]
    return found


def _read_measured(folder: Path) -> dict[str, dict[str, float]]:
    """Return the columns of the architectures that a search measured, by `arch_id`.

    What is predicted of them is what was predicted once the predictor had learned from them.
    """
    path = folder / "adaptive_measurement.json"
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
    row = {name: getattr(trial, name) for name in IDENTITY if name != "status"}
    row["status"] = "complete" if trial.complete else "failed"
    for name, value in trial.facts.items():
        # A fact may bear the name of a column that is kept for verified values: it is a prediction.
        kept = name in VERIFIED and name not in MEASURED
        row[f"{name}_predicted" if kept else name] = value
    return row | {columns[name]: value for name, value in trial.values.items()}
