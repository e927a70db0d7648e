"""When a search ends.

It is decided from the trials that have ended, as the ledger holds them, and from nothing else: a
search that is started again under the same limits ends where it did, and under higher ones goes on.
At a limit of time, trainings that are under way are cut; at any other limit they are finished.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nas.core.errors import ConfigError
from nas.core.trial import Trial

HOUR_S = 3600.0

ROUNDING = 1e-9
"""Full trainings: so much less than the budget is none of it, as shares do not add up exactly."""


@dataclass(frozen=True, kw_only=True)
class StopSettings:
    """Limits of a search beside its number of evaluations; whichever is reached first ends it.

    Attributes:
        wall_clock_s: Seconds that the search has run, all its runs together. What runs then is cut
            at its next training step and goes on if the limit is raised.
        worker_s: Seconds that candidates have occupied their workers, those that failed included;
            what runs then is finished.
        gain_percent_per_hour: Growth of the hypervolume below which it is not worth going on: over
            the last `gain_window` trials, in percent of the hypervolume before them, per hour.
        gain_window: Trials over which that is estimated.
        failures: Trials after which the search gives up if all have failed.
    """

    wall_clock_s: float | None = None
    worker_s: float | None = None
    gain_percent_per_hour: float | None = None
    gain_window: int = 16
    failures: int | None = 10

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("wall_clock_s", "worker_s", "gain_percent_per_hour", "gain_window"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"search.stop.{name}", value, "more than 0")
        if self.failures is not None and self.failures < 1:
            raise ConfigError("search.stop.failures", self.failures, "1 or more, or null")


@dataclass
class Spent:
    """What trials have cost so far.

    Attributes:
        trainings: Full trainings that they amount to, as `full_trainings` counts.
        worker_s: Seconds that they occupied their workers.
        ran_s: Seconds that the search had run when the last of them ended.
    """

    trainings: float = 0.0
    worker_s: float = 0.0
    ran_s: float = 0.0
    _reached: dict[str, float] = field(default_factory=dict)

    def add(self, *trials: Trial) -> Spent:
        """Count further trials."""
        for trial in trials:
            before = self._reached.get(trial.arch_id, 0.0)
            self._reached[trial.arch_id] = max(before, trial.fidelity)
            self.trainings += self._reached[trial.arch_id] - before
            self.worker_s += trial.seconds
            self.ran_s = max(self.ran_s, trial.ended_s)
        return self


def seconds_left(
    evaluations: float,
    settings: StopSettings,
    spent: Spent,
    each_s: float,
    workers: int,
) -> float:
    """Return how long a search goes on if the first limit to be reached is one of time or number.

    Args:
        evaluations: Full trainings at which it ends.
        settings: Its other limits.
        spent: By the trials that have ended.
        each_s: Seconds that a full training takes.
        workers: Candidates at a time.
    """
    left_s = [(evaluations - spent.trainings) * each_s / workers]
    if settings.worker_s is not None:
        left_s.append((settings.worker_s - spent.worker_s) / workers)
    if settings.wall_clock_s is not None:
        left_s.append(settings.wall_clock_s - spent.ran_s)
    return max(min(left_s), 0.0)


@dataclass(frozen=True)
class Stop:
    """Why a search has ended.

    Attributes:
        by: Name of the limit that was reached first, or `exhausted` where nothing is left to try.
        detail: The same for people, with what was reached.
    """

    by: str
    detail: str


BY_TIME = ("wall_clock_s", "budget")
"""The limits that `Stop.by` names where time was up."""

EXHAUSTED = Stop("exhausted", "the algorithm knows no further architecture within the limits")


@dataclass
class Stopping:
    """Watches one search.

    Attributes:
        evaluations: Full trainings at which the search ends; a partial one counts as its share.
        settings: Its other limits.
        hypervolume: Returns the hypervolume of trials; needed where its growth is limited.
        planned_s: Returns, given the trials that have ended, after how many seconds the search is
            to end so that a budget is kept; `None` where there is none.
    """

    evaluations: float
    settings: StopSettings = field(default_factory=StopSettings)
    hypervolume: Callable[[Sequence[Trial]], float] | None = None
    planned_s: Callable[[Sequence[Trial]], float] | None = None
    _ended: list[Trial] = field(default_factory=list, init=False)
    _complete: int = field(default=0, init=False)
    _spent: Spent = field(default_factory=Spent, init=False)
    _planned_s: float = field(default=math.inf, init=False)

    def note(self, trials: Sequence[Trial]) -> None:
        """Take note of trials that have ended."""
        for trial in sorted(trials, key=_ended_s):
            bisect.insort(self._ended, trial, key=_ended_s)
            self._complete += trial.complete
            self._spent.add(trial)
        self._planned_s = math.inf if self.planned_s is None else self.planned_s(self._ended)

    @property
    def ends_s(self) -> float:
        """Seconds after which the search ends, as it is known now."""
        return min(self._planned_s, self.settings.wall_clock_s or math.inf)

    def out_of_time(self) -> Stop:
        """Return that the limit of time was reached."""
        wall_clock_s, budget = BY_TIME
        by = budget if self._planned_s == self.ends_s else wall_clock_s
        limit_s = max(self.ends_s, 0.0)
        return Stop(by, f"{self._spent.ran_s:.0f} s of search, the limit is {limit_s:.4g}")

    def enough(self, trainings: float) -> Stop | None:
        """Return whether so many full trainings are all that were to be made."""
        if trainings < self.evaluations - ROUNDING:
            return None
        return Stop("evaluations", f"{self.evaluations} evaluations")

    def reached(self, trainings: float) -> Stop | None:
        """Return the limit that keeps a candidate from being asked for, after so many trainings."""
        limits = (self._failures, self._time, self._worker, self._gain)
        found = (limit() for limit in limits) if self._ended else iter(())
        return self.enough(trainings) or next((stop for stop in found if stop is not None), None)

    def _failures(self) -> Stop | None:
        limit = self.settings.failures
        if limit is None or len(self._ended) < limit or self._complete:
            return None
        return Stop("failures", f"all of {len(self._ended)} trials have failed")

    def _time(self) -> Stop | None:
        return None if self._spent.ran_s < self.ends_s else self.out_of_time()

    def _worker(self) -> Stop | None:
        limit_s, used_s = self.settings.worker_s, self._spent.worker_s
        if limit_s is None or used_s < limit_s:
            return None
        return Stop("worker_s", f"{used_s:.0f} s on workers, the limit is {limit_s:g}")

    def _gain(self) -> Stop | None:
        least, window = self.settings.gain_percent_per_hour, self.settings.gain_window
        if least is None or self.hypervolume is None or len(self._ended) <= window:
            return None
        before = self._ended[:-window]
        volume = self.hypervolume(before)
        if volume <= 0:  # nothing to compare with yet
            return None
        percent = 100 * (self.hypervolume(self._ended) / volume - 1)
        took_s = self._ended[-1].ended_s - before[-1].ended_s
        if took_s <= 0:  # reported together: there is no rate yet
            return None
        per_hour = percent * HOUR_S / took_s
        if per_hour >= least:
            return None
        line = f"the hypervolume grew by {per_hour:.3g} % an hour over the last {window} trials"
        return Stop("gain_percent_per_hour", f"{line}, the limit is {least:g}")


def _ended_s(trial: Trial) -> float:
    return trial.ended_s
