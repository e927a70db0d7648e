"""Studies and what they found: the ledger, Pareto queries, hypervolume, plots and reports."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError, HwnasError, UnknownNameError
from nas.core.trial import FULL

if TYPE_CHECKING:
    from nas.results.study import StudyResults

RECORD = "study.json"
"""File of a study's folder that says what the study is."""

_OF_TRIALS = (
    "trials_complete",
    "trials_failed",
    "values_of",
    "error_best",
    "hypervolume",
    "hypervolume_share",
)

_logger = logging.getLogger(__name__)


def open_study(path_or_name: str | Path, runs: str | Path = "runs") -> StudyResults:
    """Open a study for reading.

    Args:
        path_or_name: The study's folder, or its name.
        runs: Folder that holds the studies.

    Raises:
        HwnasError: There is no such study (the message lists those that are there), or its
            `study.json` cannot be read.
    """
    from nas.results.study import StudyResults

    for folder in (Path(path_or_name), Path(runs, path_or_name)):
        if (folder / RECORD).is_file():
            return StudyResults(folder)
    known = [folder.name for folder in _folders(runs)]
    raise UnknownNameError("study", str(path_or_name), known, f"a study of {runs}/:")


def studies(runs: str | Path = "runs") -> list[dict[str, Any]]:
    """Summarise all studies of a folder, newest first.

    A study that cannot be read is left out, with a warning in the log. Of one whose ledger is on a
    server or a file elsewhere, only what its folder says is known: a list opens none of these.

    Args:
        runs: Folder that holds the studies; need not exist.

    Returns:
        One record a study: `name`, `created_utc`, `status` ("searching", "searched" or
        "finalised"), `data`, `space`, `device`, `objectives`, `trials_complete`, `trials_failed`,
        `values_of` ("verified" where the following are of verified architectures, "search" where
        they are as the search saw them), `error_best` (validation, %; `None` without any),
        `hypervolume`, `hypervolume_share`, `path`. What a ledger elsewhere would say is `None`.
    """
    from nas.results.study import StudyResults

    found: list[dict[str, Any]] = []
    for folder in _folders(runs):
        try:
            found.append(_summary(StudyResults(folder)))
        except HwnasError as error:
            _logger.warning("left out: %s", error)
    return sorted(found, key=lambda summary: summary["created_utc"], reverse=True)


def _folders(runs: str | Path) -> list[Path]:
    if Path(runs).exists() and not Path(runs).is_dir():
        raise ConfigError("runs", str(runs), "a folder of studies")
    return sorted(record.parent for record in Path(runs).glob(f"*/{RECORD}"))


def _summary(study: StudyResults) -> dict[str, Any]:
    from nas.results.columns import device_label

    known = {
        "name": study.name,
        "created_utc": study.created_utc,
        "status": study.status,
        "data": (study.record.get("data") or {}).get("name"),
        "space": (study.record.get("space") or {}).get("name"),
        "device": device_label(study.record.get("device")),
        "objectives": list(study.columns),
        **dict.fromkeys(_OF_TRIALS),
        "path": str(study.path),
    }
    return known if study.ledger_elsewhere else known | _summary_of_trials(study)


def _summary_of_trials(study: StudyResults) -> dict[str, Any]:
    trials = study.trials()
    front = study.pareto(trials=trials)
    full = trials[trials["fidelity"] == FULL]
    verified = bool(trials["verified"].any())
    column = "error_final" if verified else "error"
    errors = full[column].dropna() if column in full else full["number"][:0]
    return {
        "trials_complete": int((trials["status"] == "complete").sum()),
        "trials_failed": int((trials["status"] == "failed").sum()),
        "values_of": "verified" if verified else "search",
        "error_best": float(errors.min()) if len(errors) else None,
        "hypervolume": study.hypervolume(front),
        "hypervolume_share": study.hypervolume_share(front),
    }
