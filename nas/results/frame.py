"""Trials as a table: one row a trial, one column a number, predicted and measured kept apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.core.files import json_values
from nas.core.objective import Constraint
from nas.core.records import NUMBER, check_kinds, decoding, read_json
from nas.core.trial import FULL, Trial
from nas.results.columns import MEASURED, metric_units, verified_names

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
        Columns `IDENTITY`, the objectives', the facts', `verified_names`, and two of truth values:
        `verified`, of a full training only, and `feasible`, whether a complete trial keeps all
        constraints, judged by values of `verified_columns` where there are any. A missing value is
        NaN.

    Raises:
        HwnasError: The record of a verified architecture, or of those measured, cannot be read.
    """
    columns, verified_columns = record["columns"], record["verified_columns"]
    own_names = verified_names(record)
    verified, measured = _read_verified(folder, record, own_names), measured_in_search(folder)
    of_verified = list(dict.fromkeys([*own_names, *verified_columns.values()]))
    added = set(of_verified) - set(columns.values())
    # A column at a time: pandas takes 20 times as long to make a table of rows.
    numbers = _Numbers(len(trials))
    for row, trial in enumerate(trials):
        numbers.put(
            row, {_fact_column(name, own_names): value for name, value in trial.facts.items()}
        )
        numbers.put(row, {columns[name]: value for name, value in trial.values.items()})
        if trial.complete and (found := measured.get(trial.arch_id)):
            numbers.put(row, found)
        if trial.complete and trial.full and (found := verified.get(trial.arch_id)):
            numbers.put(row, {name: value for name, value in found.items() if name in added})
    facts = [name for name in numbers.columns if name not in own_names]
    identity = {name: _identity(trials, name) for name in IDENTITY}
    frame = pd.DataFrame(
        identity
        | {name: numbers[name] for name in dict.fromkeys([*columns.values(), *facts, *of_verified])}
    )
    frame = frame.astype(dict.fromkeys(("fidelity", "seconds", "ended_s"), "float64"))
    frame = frame.astype({"number": "int64", "seed": "int64"})
    frame["feasible"] = frame["status"] == "complete"
    full = frame["feasible"] & (frame["fidelity"] == FULL)
    frame["verified"] = frame["arch_id"].isin(list(verified)) & full
    for constraint in constraints:
        own = columns[constraint.objective]
        values = frame[verified_columns[constraint.objective]].fillna(frame[own])
        frame["feasible"] &= values.map(constraint.met).astype(bool)
    return frame


def _read_verified(
    folder: Path, record: Mapping[str, Any], known: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the numbers of a study's verified architectures, by `arch_id`."""
    found = {
        path.parent.name: _read_result(path, record["verified_columns"].values(), known)
        for path in sorted(folder.glob("finalised/*/result.json"))
    }
    tested = [f"{name}_test" for name in metric_units(record)]
    judged = [f"{name}_{split}" for name in metric_units(record) for split in ("final", "test")]
    for arch_id, numbers in found.items():
        repeats = sorted(folder.glob(f"finalised/seeds/*/{arch_id}/result.json"))
        every = [numbers, *(_read_result(path, judged, known) for path in repeats)]
        with decoding(folder / "finalised" / arch_id / "result.json"):
            if repeats:
                numbers["seeds"] = len(every)
            for name in judged if repeats else ():
                values = [result[name] for result in every]
                numbers |= {f"{name}_mean": mean(values), f"{name}_std": stdev(values)}
        refitted = folder / "finalised" / "refit" / arch_id / "result.json"
        if refitted.is_file():
            again = _read_result(refitted, [], known)
            numbers |= {f"{name}_refit": again.get(name) for name in tested}
    return found


def _read_result(path: Path, needed: Iterable[str], known: Collection[str]) -> dict[str, Any]:
    """Return the numbers of an architecture, of which those `known` and `needed` have a value.

    A front leaves out what has none, so that a damaged record would change it without a word.
    """
    fix = f"restore it from a copy, or delete {path.parent} and run the same search again"
    record = read_json(path, {"arch_id": str, "error_test": NUMBER}, fix)
    with decoding(path, fix):
        if record["arch_id"] != path.parent.name:
            raise ValueError(f"it is of architecture {record['arch_id']}")
        check_kinds(record, {name: NUMBER | None for name in known if name in record})
        check_kinds(record, {name: NUMBER for name in needed if name in known})
    return record


def measured_in_search(folder: Path) -> dict[str, dict[str, float]]:
    """Return the columns of the architectures that a search measured, by `arch_id`.

    What is predicted of them is what was predicted once the predictor had learned from them.
    """
    path = folder / "adaptive_measurement.json"
    if not path.is_file():
        return {}
    rows = read_json(path, {"measured": list})["measured"]
    with decoding(path):
        for row in rows:
            check_kinds(row, {"arch_id": str, "columns": dict})
            check_kinds(row["columns"], dict.fromkeys(row["columns"], NUMBER | None))
        return {row["arch_id"]: row["columns"] for row in rows if row["columns"]}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain JSON values: no NaN (`None`), no tuples, no NumPy."""
    found: list[dict[str, Any]] = json_values(frame.to_dict("records"))
    return found


class _Numbers:
    """Columns of numbers, NaN where a row has none."""

    def __init__(self, rows: int) -> None:
        self.columns: dict[str, npt.NDArray[np.float64]] = {}
        self._rows = rows

    def put(self, row: int, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            self[name][row] = np.nan if value is None else value

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        if name not in self.columns:
            self.columns[name] = np.full(self._rows, np.nan)
        return self.columns[name]


def _identity(trials: Sequence[Trial], name: str) -> pd.Series[Any]:
    if name == "status":
        values = ["complete" if trial.complete else "failed" for trial in trials]
    else:
        values = [getattr(trial, name) for trial in trials]
    return pd.Series(values, dtype=None if values else object)


def _fact_column(name: str, verified: Collection[str]) -> str:
    if name in IDENTITY:
        raise ValueError(f"a fact is named {name!r}, as a column of every trial")
    # A fact may bear the name of a column that is kept for verified values: it is a prediction.
    return f"{name}_predicted" if name in verified and name not in MEASURED else name
