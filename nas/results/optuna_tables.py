"""A study and its trials as Optuna's tables hold them, read in a few queries.

Optuna's own interface takes 3 ms a trial to read, and half a second to load. What is read here is
what it returns; a test compares the two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.core.errors import LedgerError
from nas.core.trial import FULL, Trial
from nas.results.database import Rows, shown

SCHEMA = "v3.2.0.a"
"""Of the tables: the revision that Optuna writes into a database with them."""

UNIQUE_NUMBER = "hwnas_unique_number"
"""Attribute of a trial that no two trials of a database share: the study's name and the number."""

INFINITE = {math.inf: "INF_POS", -math.inf: "INF_NEG"}
"""Kind of an objective's value that is no number of a database."""

OTHER_OWNER = "choose another `name`, or go on in the folder in which the study began"

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
)
"""Attributes of a trial as `encoded_trial` names them; somebody may have added others."""

# First the attributes: a trial that a server is given between the two has values without them, and
# is left out.
_ATTRIBUTES = f"""
    SELECT trials.trial_id, string_agg('"' || "key" || '":' || value_json, ',') FROM trials
    JOIN trial_user_attributes ON trial_user_attributes.trial_id = trials.trial_id
    WHERE study_id = ? AND "key" IN ({", ".join(f"'{key}'" for key in _OURS)})
    GROUP BY trials.trial_id ORDER BY trials.trial_id
"""
_VALUES = """
    SELECT trials.trial_id, value, value_type FROM trials
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
        LedgerError: The tables are those of another release of Optuna.
        KeyError: There is no such study; its arguments are the names of those that are there.
    """
    found = [str(revision) for (revision,) in rows("SELECT version_num FROM alembic_version")]
    if found != [SCHEMA]:
        line = f"tables: got {', '.join(found) or 'no'} revision of Optuna's, expected {SCHEMA}"
        raise LedgerError(
            f"ledger {shown(url)}: {line}; `optuna storage upgrade` converts older ones"
        )
    studies: dict[str, int] = dict(
        rows("SELECT study_name, study_id FROM studies ORDER BY study_id")
    )
    if name not in studies:
        raise KeyError(*studies)
    query = 'SELECT "key", value_json FROM study_user_attributes WHERE study_id = ?'
    attributes = {key: json.loads(text) for key, text in rows(query, studies[name])}
    return StudyRow(studies[name], name, attributes)


def check_owner(attributes: Mapping[str, Any], name: str, owner: str, url: str) -> None:
    """Refuse a study, of user attributes `attributes`, that belongs to somebody else."""
    if attributes.get("owner", "") != owner:
        place = attributes.get("writer", {}).get("place") or attributes.get("owner") or "no folder"
        line = f"study {name!r} belongs to {place}"
        raise LedgerError(f"ledger {shown(url)}: {line}; {OTHER_OWNER}")


def read_trials(rows: Rows, study_id: int, objectives: Sequence[str], url: str) -> list[Trial]:
    """Return the trials of a study in the order in which they were written.

    Those without a number of ours are left out: somebody has queued them in a dashboard.

    Raises:
        LedgerError: A trial is not as it was written.
    """
    attributes = rows(_ATTRIBUTES, study_id)
    infinite = {kind: number for number, kind in INFINITE.items()}
    values: dict[int, list[Any]] = {}
    for trial_id, value, kind in rows(_VALUES, study_id):
        values.setdefault(trial_id, []).append(infinite.get(kind, value))
    try:
        # All at once: a call for each takes longer than the reading.
        joined = "},{".join([text or "" for _, text in attributes])
        held = json.loads(f"[{{{joined}}}]") if attributes else []
        return [
            decoded_trial(of_trial, values.get(trial_id, ()), objectives)
            for (trial_id, _), of_trial in zip(attributes, held, strict=True)
            if "number" in of_trial
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        line = f"a trial is damaged ({type(error).__name__}: {error})"
        raise LedgerError(
            f"ledger {shown(url)}: {line}; restore a copy or name a new study"
        ) from error


def decoded_trial(
    held: Mapping[str, Any], values: Sequence[float], objectives: Sequence[str]
) -> Trial:
    """Return the trial with attributes `held` and Optuna's values of its objectives."""
    values = held.get("values", values)
    return Trial(
        number=held["number"],
        genotype=tuple(held["genotype"]),
        arch_id=held["arch_id"],
        seed=held["seed"],
        fidelity=float(held.get("fidelity", FULL)),
        values={name: float(value) for name, value in zip(objectives, values, strict=False)},
        facts={name: float(value) for name, value in held["facts"].items()},
        seconds=float(held["seconds"]),
        ended_s=float(held.get("ended_s", 0.0)),
        failure=held["failure"],
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
