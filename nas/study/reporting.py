"""What a study tells of its progress."""

from __future__ import annotations

import contextlib
import html
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nas.core.errors import counted, printable
from nas.core.trial import History, Trial, full_trainings
from nas.results.hypervolume import hypervolume, non_dominated
from nas.results.terminal import console
from nas.search.stopping import ROUNDING, Spent, StopSettings, seconds_left


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search is about to do.

    Attributes:
        evaluations: Full trainings at which it ends, those of earlier runs included; infinite where
            time alone ends it.
        stop: Its other limits.
        recorded: Trials that the ledger holds already.
        workers: Candidates evaluated at a time.
        simulated: Whether the workers' seconds are simulated, so that nobody waits for them.
        lookahead: Candidates pending at a time.
        verification_s: Seconds that the front's verification takes after the search, if that is
            known.
        columns: Column of every objective in tables of trials, by the objective's name.
        trained: Unit of every objective whose value training tells, by the objective's name.
        reference_point: Of the hypervolume, by the objective's name.
    """

    evaluations: float
    stop: StopSettings
    recorded: tuple[Trial, ...]
    workers: int
    simulated: bool
    lookahead: int
    columns: Mapping[str, str]
    trained: Mapping[str, str]
    reference_point: Mapping[str, float]
    verification_s: float = 0.0


SILENT_S = 30.0
"""Seconds without a line after which a stage that goes on says so, where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class NotebookBar:
    """How far a stage is, as a notebook shows it.

    Attributes:
        what: The stage.
        done: Of what it works through.
        total: All of that; `None` where it is not counted.
        text: What else there is to say.
    """

    what: str
    done: float
    total: int | None
    text: str = ""

    def __repr__(self) -> str:
        """Return the same as text, for what shows no HTML."""
        count = "" if self.total is None else f"{self.done:.4g}/{self.total}"
        return " ".join(part for part in (self.what, count, self.text) if part)

    def _repr_html_(self) -> str:
        """Return a bar, and the text beside it."""
        # Without a value the bar shows that something goes on.
        share = "" if self.total is None else f' value="{self.done:.4g}" max="{self.total}"'
        return f"<progress{share}></progress> {html.escape(repr(self))}"


class Reporter:
    """Shows a study's progress: a live bar a stage on terminals and in notebooks, lines elsewhere.

    To be told of the progress in another way, override the four methods.
    """

    def __init__(self) -> None:
        self._console = console()
        self._live = self._console.is_terminal or self._console.is_jupyter
        self._started = self._said = time.monotonic()
        self._show: Callable[[float, str], None] | None = None
        self._plan: SearchPlan | None = None
        self._spent = Spent()
        self._recorded: set[int] = set()
        self._front: list[list[float]] = []

    def stage(self, text: str) -> None:
        """Print that a stage begins, or another line worth reading."""
        self._said = time.monotonic()
        line = f"[{self._said - self._started:6.0f} s] {text}"
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[..., None]]:
        """Show how far a stage is for the time of a `with` block, also while nothing of it ends.

        Args:
            what: The stage.
            total: Of what it works through; `None` where that is not counted.

        Yields:
            A function to call with the number that is done and, if need be, a summary.
        """
        live = self._in_notebook if self._console.is_jupyter else self._bar
        shown = live if self._live else self._lines
        with shown(what, total) as show:
            yield show

    @contextlib.contextmanager
    def _bar(self, what: str, total: int | None) -> Iterator[Callable[..., None]]:
        columns = (
            TextColumn(what),
            BarColumn(bar_width=16),
            *([] if total is None else [MofNCompleteColumn()]),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        # Redrawing costs the driver processor time that the workers could use.
        uncounted = total is None
        bar = Progress(*columns, console=self._console, refresh_per_second=1, transient=uncounted)
        started = time.monotonic()
        with bar:
            task = bar.add_task("", total=total)

            def show(done: float, summary: str = "") -> None:
                text = summary or _left(started, done, total)
                bar.update(task, completed=done, description=text)

            yield show

    @contextlib.contextmanager
    def _in_notebook(self, what: str, total: int | None) -> Iterator[Callable[..., None]]:
        # Rich and tqdm need ipywidgets for a bar; a display that is updated does not.
        from IPython.display import display

        started = time.monotonic()
        shown: Any = display(NotebookBar(what=what, done=0, total=total), display_id=True)

        def show(done: float, summary: str = "") -> None:
            ran = f"after {duration(time.monotonic() - started)}"
            text = ", ".join(filter(None, (summary or _left(started, done, total), ran)))
            shown.update(NotebookBar(what=what, done=done, total=total, text=text))

        yield show
        if total is None:
            shown.update(NotebookBar(what=what, done=1, total=1))

    @contextlib.contextmanager
    def _lines(self, what: str, total: int | None) -> Iterator[Callable[..., None]]:
        ended, started, state = threading.Event(), time.monotonic(), (0.0, "")

        def show(done: float, summary: str = "") -> None:
            nonlocal state
            state = done, summary

        def tell() -> None:
            while not ended.wait(max(self._said + SILENT_S - time.monotonic(), 0.1)):
                if time.monotonic() - self._said < SILENT_S:
                    continue
                done, summary = state
                ran = "" if total is None else f" {done:.4g}/{total}"
                text = summary or _left(started, done, total)
                ran += f" after {duration(time.monotonic() - started)}"
                self._said = time.monotonic()
                self.stage(f"{what}:{ran}" + (f", {text}" if text else ""))

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield show
        finally:
            ended.set()
            teller.join()

    @contextlib.contextmanager
    def search(self, plan: SearchPlan) -> Iterator[None]:
        """Show the progress of a search for the time of a `with` block."""
        self._plan = plan
        self._recorded = {trial.number for trial in plan.recorded}
        self.stage(_announcement(plan))
        total = None if math.isinf(plan.evaluations) else int(plan.evaluations)
        with self.progress("search", total) as self._show:
            yield

    def trial(self, trial: Trial, *, feasible: bool, history: History = ()) -> None:
        """Show a trial that has ended, now or in an earlier run.

        Args:
            trial: The trial.
            feasible: Whether it is complete and keeps every constraint.
            history: Of its training; see `Outcome.history`.
        """
        assert self._plan is not None, "trials come within `search`"
        self._spent.add(trial)
        point = [trial.values.get(name, math.nan) for name in self._plan.columns]
        if feasible and trial.full and all(map(math.isfinite, point)):
            points = [*self._front, point]
            self._front = [p for p, kept in zip(points, non_dominated(points), strict=True) if kept]
        done = self._spent.trainings
        summary = self._summary(self._plan)
        if self._show is not None:
            self._show(done, summary)
        if not self._live and trial.number not in self._recorded:
            of = "" if math.isinf(self._plan.evaluations) else f"/{self._plan.evaluations:g}"
            count = f"{done:.4g}{of}"
            result = _result(trial, self._plan.columns) + _pace(history)
            self.stage(f"{count} {trial.arch_id} {result} | {summary}")

    def _summary(self, plan: SearchPlan) -> str:
        parts = []
        names = list(plan.columns)
        if self._front:
            for name, unit in plan.trained.items():
                best = min(point[names.index(name)] for point in self._front)
                parts.append(f"best {name.replace('_', ' ')} {best:.2f} {unit}".rstrip())
            volume = hypervolume(self._front, [plan.reference_point[name] for name in names])
            parts.append(f"hypervolume {volume:.4g}")
        spent = self._spent
        if spent.trainings < plan.evaluations - ROUNDING and not plan.simulated:
            mean_s = spent.worker_s / spent.trainings
            left_s = seconds_left(plan.evaluations, plan.stop, spent, mean_s, plan.workers)
            parts.append(f"{duration(left_s + plan.verification_s)} left")
        return ", ".join(parts)


def _announcement(plan: SearchPlan) -> str:
    recorded = full_trainings(plan.recorded)
    new = plan.evaluations - recorded
    if new <= 0:
        return f"in the ledger: all of {counted(int(plan.evaluations), 'architecture')}"
    workers = counted(plan.workers, "simulated worker" if plan.simulated else "worker")
    what = "architectures" if math.isinf(new) else counted(round(new, 2), "architecture")
    line = f"evaluating {what} on {workers}"
    if plan.recorded:
        line = f"in the ledger: {counted(round(recorded, 2), 'architecture')}; {line}"
    if plan.workers > plan.lookahead:
        idle = plan.workers - plan.lookahead
        line += f"; {counted(idle, 'worker')} will idle: raise search.lookahead under another name"
    return line


def _result(trial: Trial, columns: Mapping[str, str]) -> str:
    if trial.failure is not None:
        return f"failed: {trial.failure}"
    values = ", ".join(f"{columns[name]} {value:.4g}" for name, value in trial.values.items())
    return values if trial.full else f"{values} after {100 * trial.fidelity:.3g} % of the training"


def _pace(history: History) -> str:
    """Return the loss and the images a second of the last epoch of a training."""
    last = history[-1] if history else {}
    loss = f", loss {last['loss']:.3g}" if "loss" in last else ""
    return loss + (f", {last['images_per_s']:.4g} images/s" if "images_per_s" in last else "")


def _left(started: float, done: float, total: int | None) -> str:
    """Return how long a stage goes on if the rest of it takes as long as what is done."""
    if total is None or not 0 < done < total:
        return ""
    left_s = (time.monotonic() - started) / done * (total - done)
    return f"about {duration(left_s)} left"


def duration(seconds: float) -> str:
    """Return a time in the unit in which it is read most easily."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
