"""What the command line shows: tables, and the progress of a study."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nas.core.trial import Trial, full_trainings
from nas.results.hypervolume import hypervolume
from nas.search.stopping import seconds_left
from nas.study.reporting import SearchPlan, duration

if TYPE_CHECKING:
    import pandas as pd

    from nas.results.study import StudyResults

PLAIN_WIDTH = 250
"""Columns of the output where it is no terminal: wider than any table, so that none wraps."""


def console() -> Console:
    """Return a console for standard output; without a terminal it writes plain lines."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=PLAIN_WIDTH)


def print_records(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print records as a table of some of their keys."""
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for record in records:
        table.add_row(*(_text(record.get(column)) for column in columns))
    console().print(table)


def print_front(study: StudyResults, front: pd.DataFrame | None = None) -> None:
    """Print a front, by default the study's own, as a table; say so if it is empty."""
    # pandas takes a while to load, and this module serves commands that need none.
    from nas.results.report import table

    front = study.pareto() if front is None else front
    drawn = table(study, front)
    # On a narrow terminal cells fold and lose nothing: an arch_id must be there to be picked.
    drawn.box, drawn.pad_edge, drawn.collapse_padding = box.SIMPLE_HEAD, False, True
    drawn.columns[0].no_wrap = True
    for column in drawn.columns:
        column.overflow = "fold"
    console().print(drawn)
    if front.empty:
        limits = ", ".join(map(str, study.constraints))
        console().print(
            f"no architecture is left; constraints: {limits or 'none'}", highlight=False
        )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    # Brackets are no markup here.
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


class ConsoleReporter:
    """Shows a study's progress: a live bar on a terminal, a line for each trial elsewhere."""

    def __init__(self) -> None:
        """Start the clock."""
        self._console = console()
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None
        self._plan: SearchPlan | None = None
        self._trials: list[Trial] = []
        self._points: list[list[float]] = []

    def stage(self, text: str) -> None:
        """Print a line; see `Reporter.stage`."""
        line = f"[{time.monotonic() - self._started:6.0f} s] {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def search(self, plan: SearchPlan) -> Iterator[None]:
        """Show the progress of a search; see `Reporter.search`."""
        self._plan = plan
        self.stage(_announcement(plan))
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("search"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        # Redrawing costs the driver processor time that the workers could use.
        with Progress(*columns, console=self._console, refresh_per_second=1) as self._progress:
            self._task = self._progress.add_task("", total=plan.evaluations)
            yield
        self._progress = None

    def trial(self, trial: Trial, *, feasible: bool) -> None:
        """Show a trial; see `Reporter.trial`."""
        assert self._plan is not None, "trials come within `search`"
        self._trials.append(trial)
        point = [trial.values.get(name, math.nan) for name in self._plan.columns]
        if feasible and trial.full and all(map(math.isfinite, point)):
            self._points.append(point)
        done = full_trainings(self._trials)
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=self._summary(self._plan))
        elif trial.number not in {earlier.number for earlier in self._plan.recorded}:
            count = f"{done:.4g}/{self._plan.evaluations}"
            result = _result(trial, self._plan.columns)
            self.stage(f"{count} {trial.arch_id} {result} | {self._summary(self._plan)}")

    def _summary(self, plan: SearchPlan) -> str:
        parts = []
        names = list(plan.columns)
        if self._points and "error" in names:
            best = min(point[names.index("error")] for point in self._points)
            parts.append(f"best error {best:.2f} %")
        if self._points:
            volume = hypervolume(self._points, [plan.reference_point[name] for name in names])
            parts.append(f"hypervolume {volume:.4g}")
        done = full_trainings(self._trials)
        if done < plan.evaluations and not plan.simulated:
            mean_s = sum(trial.seconds for trial in self._trials) / done
            left_s = seconds_left(plan.evaluations, plan.stop, self._trials, mean_s, plan.workers)
            parts.append(f"{duration(left_s)} left")
        return ", ".join(parts)


def _announcement(plan: SearchPlan) -> str:
    recorded = full_trainings(plan.recorded)
    new = plan.evaluations - recorded
    if new <= 0:
        return f"all {plan.evaluations} architectures are in the ledger"
    workers = "simulated workers" if plan.simulated else "workers"
    line = f"evaluating {new:.4g} architectures on {plan.workers} {workers}"
    if plan.recorded:
        line = f"{recorded:.4g} architectures are in the ledger; {line}"
    if plan.workers > plan.lookahead:
        idle = plan.workers - plan.lookahead
        line += f"; {idle} workers will idle: raise search.lookahead under another name"
    return line


def _result(trial: Trial, columns: Mapping[str, str]) -> str:
    if trial.failure is not None:
        return f"failed: {trial.failure}"
    values = ", ".join(f"{columns[name]} {value:.4g}" for name, value in trial.values.items())
    return values if trial.full else f"{values} after {100 * trial.fidelity:.3g} % of the training"
