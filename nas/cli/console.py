"""What the command line shows: tables, and the progress of a study."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nas.core.trial import Trial
from nas.results.hypervolume import hypervolume

PLAIN_WIDTH = 160
"""Columns of the output where it is no terminal, so that tables do not wrap."""


def console() -> Console:
    """Return a console for standard output; without a terminal it writes plain lines."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=PLAIN_WIDTH)


def print_records(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print records as a table of some of their keys."""
    table = Table(*columns)
    for record in records:
        table.add_row(*(_text(record.get(column)) for column in columns))
    console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class ConsoleReporter:
    """Shows a study's progress: a live bar on a terminal, a line for each trial elsewhere."""

    def __init__(self) -> None:
        """Start the clock."""
        self._console = console()
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None
        self._evaluations = 0
        self._reference: Mapping[str, float] = {}
        self._points: list[list[float]] = []
        self._done = 0
        self._seconds: list[float] = []
        self._workers = 1

    def stage(self, text: str) -> None:
        """Print a line; see `Reporter.stage`."""
        self._console.print(f"[{time.monotonic() - self._started:6.0f} s] {text}", markup=False)

    @contextlib.contextmanager
    def search(
        self,
        *,
        evaluations: int,
        workers: int,
        lookahead: int,
        reference_point: Mapping[str, float],
    ) -> Iterator[None]:
        """Show the progress of a search; see `Reporter.search`."""
        self._evaluations, self._workers = evaluations, workers
        self._reference = reference_point
        self.stage(f"evaluating {evaluations} architectures on {workers} workers")
        if workers > lookahead:
            self.stage(f"{workers - lookahead} workers will idle: raise search.lookahead")
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("search"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        # Redrawing costs the driver processor time that the workers could use.
        with Progress(*columns, console=self._console, refresh_per_second=1) as self._progress:
            self._task = self._progress.add_task("", total=evaluations)
            yield
        self._progress = None

    def trial(self, trial: Trial) -> None:
        """Show a trial; see `Reporter.trial`."""
        self._done += 1
        self._seconds.append(trial.seconds)
        if trial.complete:
            self._points.append([trial.values[name] for name in self._reference])
        summary = self._summary()
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done, description=summary)
        else:
            count = f"{self._done}/{self._evaluations}"
            self.stage(f"{count} {trial.arch_id} {_values(trial)} | {summary}")

    def _summary(self) -> str:
        parts = []
        if self._points and "error" in self._reference:
            column = list(self._reference).index("error")
            parts.append(f"best error {min(point[column] for point in self._points):.2f} %")
        if self._points:
            volume = hypervolume(self._points, list(self._reference.values()))
            parts.append(f"hypervolume {volume:.4g}")
        left = (self._evaluations - self._done) * sum(self._seconds) / len(self._seconds)
        parts.append(f"{left / self._workers:.0f} s left")
        return ", ".join(parts)


def _values(trial: Trial) -> str:
    if trial.failure is not None:
        return f"failed: {trial.failure}"
    return ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
