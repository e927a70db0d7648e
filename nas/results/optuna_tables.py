"""A study and its trials as Optuna's tables hold them, read in a few queries.

Optuna's own interface takes 3 ms a trial to read, and half a second to load. What is read here is
what it returns; a test compares the two.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.core.errors import LedgerError
from nas.core.records import check_kinds
from nas.core.trial import FULL, Trial
from nas.results.database import Rows, shown, sqlite_file

UNIQUE_NUMBER = "hwnas_unique_number"
"""Attribute of a trial that no two trials of a database share: the study's name and the number."""

INFINITE = {math.inf: "INF_POS", -math.inf: "INF_NEG"}
"""Kind of an objective's value that is no number of a database."""

OTHER_OWNER = "choose another `name`, or go on in the folder in which the study began"

LOST = "restore it, or delete the study's folder or choose another `name` to start anew"

_OURS = (
    "number",
    "arch_id",
    "genotype",
    "seed",
    "fidelity",
    "seconds",
    "ended_s",
    "failure",
    "facts",
    "values",
    "cut",
)
"""Attributes of a trial as `encoded_trial` names them; somebody may have added others."""

_READ = {
    "studies": ("study_id", "study_name"),
    "study_user_attributes": ("study_id", "key", "value_json"),
    "trials": ("trial_id", "study_id", "state"),
    "trial_user_attributes": ("trial_id", "key", "value_json"),
    "trial_values": ("trial_id", "objective", "value", "value_type"),
}
"""Columns of Optuna's tables that are read; other releases may have more."""

_STUDY_KINDS = {"objectives": list, "genes": dict, "owner": str, "writer": dict, "segments": list}
_TRIAL_KINDS = {
    "number": int,
    "arch_id": str,
    "genotype": list,
    "seed": int,
    "failure": str | None,
    "facts": dict,
    "cut": bool,
}
_INT64 = range(-(2**63), 2**63)

# Of tables only, and of columns that are stored: a view of that name, which only a file from
# elsewhere has, may take for ever to read.
_COLUMNS_OF_FILE = """
    SELECT made.name, own.name FROM sqlite_master AS made, pragma_table_info(made.name) AS own
    WHERE replace(made.sql, '"', '') GLOB 'CREATE TABLE ' || made.name || ' (*'
"""
_COLUMNS_OF_SERVER = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = ANY(current_schemas(false))
"""
# Attributes are read first. On a server, a trial may be added between the two queries: then only
# its values are read, and it is left out.
_ATTRIBUTES = f"""
    SELECT trials.trial_id, string_agg('"' || "key" || '":' || value_json, ',') FROM trials
    JOIN trial_user_attributes ON trial_user_attributes.trial_id = trials.trial_id
    WHERE study_id = ? AND "key" IN ({", ".join(f"'{key}'" for key in _OURS)})
    GROUP BY trials.trial_id ORDER BY trials.trial_id
"""
_VALUES = """
    SELECT trials.trial_id, objective, value, value_type FROM trials
    JOIN trial_values ON trial_values.trial_id = trials.trial_id
    WHERE study_id = ? AND state = 'COMPLETE' ORDER BY trials.trial_id, objective
"""


@dataclass(frozen=True)
class StudyRow:
    """An Optuna study.

    Attributes:
        study_id: Its number in the database.
        name: Its name.
        attributes: Its user attributes.
    """

    study_id: int
    name: str
    attributes: Mapping[str, Any]


def read_study(rows: Rows, name: str, url: str) -> StudyRow:
    """Return a study of the database at `url`.

    Raises:
        LedgerError: The tables are not those that Optuna makes, or there is no such study.
    """
    on_server = sqlite_file(url) is None
    columns = {
        (str(t), str(c)) for t, c in rows(_COLUMNS_OF_SERVER if on_server else _COLUMNS_OF_FILE)
    }
    lacking = [f"{t}.{c}" for t, names in _READ.items() for c in names if (t, c) not in columns]
    if lacking:
        line = f"lacks {', '.join(lacking)}; it is no ledger of hwnas, or of an Optuna whose tables"
        raise LedgerError(
            f"ledger {shown(url)}: {line} differ: `optuna storage upgrade` converts older ones, "
            "newer ones need the Optuna that made them"
        )
    studies: dict[str, int] = dict(
        rows("SELECT study_name, study_id FROM studies ORDER BY study_id")
    )
    if name not in studies:
        known = ", ".join(map(str, studies)) or "none"
        line = f"got study {name!r}, expected one that it holds: {known}"
        raise LedgerError(f"ledger {shown(url)}: {line}; {LOST}")
    query = 'SELECT "key", value_json FROM study_user_attributes WHERE study_id = ?'
    attributes = {key: json.loads(text) for key, text in rows(query, studies[name])}
    check_kinds(attributes, {key: kind for key, kind in _STUDY_KINDS.items() if key in attributes})
    objectives = dict(enumerate(attributes.get("objectives", ())))
    check_kinds(objectives, dict.fromkeys(objectives, str))
    return StudyRow(studies[name], name, attributes)


def check_owner(attributes: Mapping[str, Any], name: str, owner: str, url: str) -> None:
    """Refuse a study, of user attributes `attributes`, that belongs to somebody else."""
    if attributes.get("owner", "") != owner:
        place = attributes.get("writer", {}).get("place") or attributes.get("owner") or "no folder"
        line = f"study {name!r} belongs to {place}"
        raise LedgerError(f"ledger {shown(url)}: {line}; {OTHER_OWNER}")


@contextlib.contextmanager
def _none_is_garbage() -> Iterator[None]:
    """Keep Python from looking for garbage among many new objects, which takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_none_is_garbage()
def read_trials(rows: Rows, study_id: int, objectives: Sequence[str]) -> list[Trial]:
    """Return the trials of a study in the order in which they were written.

    Those without a number of ours are left out: somebody has queued them in a dashboard.
    """
    attributes = rows(_ATTRIBUTES, study_id)
    infinite = {kind: number for number, kind in INFINITE.items()}
    values: dict[int, list[Any]] = {}
    for trial_id, objective, value, kind in rows(_VALUES, study_id):
        of_trial = values.setdefault(trial_id, [])
        if objective != len(of_trial):
            raise ValueError(f"a trial lacks the value of objective {len(of_trial)}")
        of_trial.append(infinite.get(kind, value))
    # All at once: a call for each takes longer than the reading.
    joined = "},{".join([text or "" for _, text in attributes])
    held = json.loads(f"[{{{joined}}}]") if attributes else []
    return [
        decoded_trial(of_one, values.get(trial_id, ()), objectives)
        for (trial_id, _), of_one in zip(attributes, held, strict=True)
        if "number" in of_one
    ]


def decoded_trial(
    held: Mapping[str, Any], values: Sequence[float], objectives: Sequence[str]
) -> Trial:
    """Return the trial with attributes `held` and Optuna's values of its objectives."""
    held = {"cut": False, **held}
    check_kinds(held, _TRIAL_KINDS)
    for name in ("number", "seed"):
        if held[name] not in _INT64:
            raise ValueError(f"{name}: got {held[name]}, expected one of 64 bits")
    values = held.get("values", values)
    expected = 0 if held["failure"] is not None else len(objectives)
    if len(values) != expected:
        raise ValueError(f"trial {held['number']}: got {len(values)} values, expected {expected}")
    return Trial(
        number=held["number"],
        genotype=tuple(map(operator.index, held["genotype"])),
        arch_id=held["arch_id"],
        seed=held["seed"],
        fidelity=float(held.get("fidelity", FULL)),
        # A failed trial has none.
        values={name: float(value) for name, value in zip(objectives, values, strict=False)},
        facts={name: float(value) for name, value in held["facts"].items()},
        seconds=float(held["seconds"]),
        ended_s=float(held.get("ended_s", 0.0)),
        failure=held["failure"],
        cut=held["cut"],
    )


def encoded_trial(
    trial: Trial, objectives: Sequence[str]
) -> tuple[dict[str, Any], list[float] | None]:
    """Return a trial's attributes, and its values if Optuna has it as a complete one."""
    attributes: dict[str, Any] = {
        "number": trial.number,
        "arch_id": trial.arch_id,
        "genotype": list(trial.genotype),
        "seed": trial.seed,
        "fidelity": trial.fidelity,
        "seconds": _encode(trial.seconds),
        "ended_s": _encode(trial.ended_s),
        "failure": trial.failure,
        "facts": {name: _encode(value) for name, value in trial.facts.items()},
    }
    if trial.cut:
        attributes["cut"] = True
    if not trial.complete:
        return attributes, None
    values = [float(trial.values[name]) for name in objectives]
    if any(map(math.isnan, values)):
        # Optuna has no complete trial with NaN; the attribute keeps what was measured.
        return attributes | {"values": [_encode(value) for value in values]}, None
    return attributes, values


def _encode(value: float) -> float | str:
    # JSON has no NaN and no infinities; `float` reads them back from their names.
    number = float(value)
    return number if math.isfinite(number) else repr(number)
