"""Studies and what they found: the ledger, Pareto queries, hypervolume, plots and reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.results.study import StudyResults


def open(path_or_name: str | Path, runs: str | Path = "runs") -> StudyResults:  # noqa: A001
    """Open a study for reading.

    Args:
        path_or_name: The study's folder, or its name.
        runs: Folder that holds the studies.

    Raises:
        HwnasError: There is no such study (the message lists those that are there), or its
            `study.json` cannot be read.
    """
    from nas.results.catalog import find
    from nas.results.study import StudyResults

    return StudyResults(find(Path(path_or_name), Path(runs)))


def studies(runs: str | Path = "runs") -> list[dict[str, Any]]:
    """Summarise all studies, newest first; see `nas.results.catalog.summaries`."""
    from nas.results.catalog import summaries

    return summaries(Path(runs))
