"""What a study tells of its progress; the command line shows it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from nas.core.trial import Trial
from nas.search.stopping import StopSettings


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search is about to do.

    Attributes:
        evaluations: Full trainings at which it ends, those of earlier runs included.
        stop: Its other limits.
        recorded: Trials that the ledger holds already.
        workers: Candidates evaluated at a time.
        simulated: Whether the workers' seconds are simulated, so that nobody waits for them.
        lookahead: Candidates pending at a time.
        columns: Column of every objective in tables of trials, by the objective's name.
        reference_point: Of the hypervolume, by the objective's name.
    """

    evaluations: int
    stop: StopSettings
    recorded: tuple[Trial, ...]
    workers: int
    simulated: bool
    lookahead: int
    columns: Mapping[str, str]
    reference_point: Mapping[str, float]


class Reporter(Protocol):
    """Told of the progress of a study."""

    def stage(self, text: str) -> None:
        """Take note that a stage begins, or of a line worth reading."""

    def search(self, plan: SearchPlan) -> AbstractContextManager[None]:
        """Show the progress of a search for the time of a `with` block."""

    def trial(self, trial: Trial, *, feasible: bool) -> None:
        """Take note of a trial that has ended, now or in an earlier run.

        Args:
            trial: The trial.
            feasible: Whether it is complete and keeps every constraint.
        """


def duration(seconds: float) -> str:
    """Return a time in the unit in which it is read most easily."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
