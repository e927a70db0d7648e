"""What a study tells of its progress; the command line shows it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from nas.core.trial import Trial


class Reporter(Protocol):
    """Told of the progress of a study."""

    def stage(self, text: str) -> None:
        """Take note that a stage begins, or of a line worth reading."""

    def search(
        self,
        *,
        evaluations: int,
        workers: int,
        lookahead: int,
        reference_point: Mapping[str, float],
    ) -> AbstractContextManager[None]:
        """Show the progress of a search for the time of a `with` block."""

    def trial(self, trial: Trial) -> None:
        """Take note of a trial that has ended."""
