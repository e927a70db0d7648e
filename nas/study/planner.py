"""Planning the time of a study while it runs.

A search within a budget ends when the time that is left is that of the verification of its front.
That is a function of the trials that have ended, so a search that is replayed ends where it did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from nas.core.errors import counted
from nas.core.host import usable_cores
from nas.core.space import Genotype
from nas.core.trial import Job, Trial, full_trainings
from nas.search.stopping import StopSettings
from nas.study.budget import (
    CALIBRATION_SHARE,
    ENDING_S,
    VERIFICATION_SHARE,
    Speeds,
    TimePlan,
    mean_s,
    planned,
    speeds_of,
)
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob

NOTICEABLE = 0.15
"""Share of a budget by which the plan changes before that is said."""

OUTSIDE_SEARCH = "seconds_outside_search"
"""Entry of `study.json`: seconds that all runs of the study took before and after the search."""

Front = Callable[[Sequence[Trial], int], Sequence[str]]
"""Returns the `arch_id` of so many of the front's members, those first that are verified first."""


@dataclass
class Planner:
    """Plans the time of one run of a study, and says so.

    Attributes:
        settings: Of the study.
        job: What evaluates candidates, or takes as long.
        final_job: The same of what trains the front's members; `None` where nothing does.
        say: Called with every line for people.
        started: When the run began, in `time.monotonic()` seconds.
        outside_s: Seconds that earlier runs took outside the search.
        workers: Candidates at a time; `None` if that cannot be told yet.
        sample_s: Seconds that a network of the calibration took, if that is known.
    """

    settings: StudySettings
    job: Job
    say: Callable[[str], None]
    started: float
    final_job: TrainingJob | None = None
    outside_s: float = 0.0
    workers: int | None = None
    sample_s: float | None = None
    _front: Front | None = field(default=None, init=False)
    _verified: Collection[str] = field(default=(), init=False)
    _trials: dict[int, Trial] = field(default_factory=dict, init=False)
    _ran_s: float = field(default=0.0, init=False)
    _before_s: float = field(default=0.0, init=False)
    _speeds: Speeds | None = field(default=None, init=False)
    # When the verification of some members began, and how long it was planned to take.
    _verifying: tuple[float, float] | None = field(default=None, init=False)
    _said_s: float = field(default=0.0, init=False)
    _planned_s: dict[str, float] = field(default_factory=dict, init=False)
    _took_s: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def budget_s(self) -> float | None:
        """Seconds of the whole study; `None` where it has no budget."""
        cores = usable_cores()
        if self.workers is not None:
            cores = self.workers * self.settings.evaluation.threads
        return self.settings.budget_s(cores)

    @property
    def calibration_limit_s(self) -> float | None:
        """Most seconds of the calibration; `None` where there is no budget."""
        return None if self.budget_s is None else CALIBRATION_SHARE * self.budget_s

    @property
    def spent_s(self) -> float:
        """Seconds that the study has taken so far, all its runs together."""
        return self.outside_s + self._ran_s + time.monotonic() - self.started

    def announce(
        self, genotypes: Sequence[Genotype], trials: Sequence[Trial], *, calibrated: bool
    ) -> TimePlan | None:
        """Say how long the stages take that are left.

        Args:
            genotypes: Candidates as they may come.
            trials: Those that have ended; where there are any, their seconds are the estimate.
            calibrated: Whether no calibration is left.

        Returns:
            The plan; `None` where nothing is known.

        Raises:
            ConfigError: The study does not fit into its budget.
        """
        self._ran_s = max((trial.ended_s for trial in trials), default=0.0)
        if not isinstance(self.job, TrainingJob):
            left = max(self.settings.evaluations - full_trainings(trials), 0)
            candidates = counted(round(left, 2), "candidate")
            if self.final_job is None:
                self.say(f"to be looked up, which takes simulated time only: {candidates}")
            elif len(self.settings.fidelity.fidelities) > 1:
                worth = counted(round(left, 2), "training")
                judged = "candidates are judged by shared weights, promising ones are trained"
                self.say(f"{judged}: in all the work of {worth}")
            else:
                self.say(f"to be scored without training: {candidates}")
            return None
        speeds = self._learn(self.job, genotypes, trials)
        if speeds.candidate_s is None and self.budget_s is None:
            self.say(f"how long the study takes is not estimated: {speeds.how}")
            return None
        plan = planned(
            self.settings,
            speeds,
            trials,
            calibrated=calibrated,
            budget_s=self.budget_s,
            spent_s=self.spent_s,
            begins=not trials and not self._planned_s,
        )
        self.say(plan.line(speeds, self.budget_s))
        # Of every stage what was said first.
        self._planned_s = {n: s for n, s in plan.stages_s.items() if s} | self._planned_s
        self._said_s = plan.verification_s
        return plan

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take note of how long a stage takes."""
        began = time.monotonic()
        yield
        self._took_s[name] = time.monotonic() - began

    @property
    def stages(self) -> dict[str, dict[str, float | None]]:
        """Seconds of the stages of this run: what they took, and what was planned at first."""
        return {
            stage: {"planned_s": self._planned_s.get(stage), "took_s": took_s}
            for stage, took_s in self._took_s.items()
        }

    def ended_line(self) -> str | None:
        """Return how long the stages of this run took; `None` where time is simulated."""
        if self._speeds is None:
            return None
        parts = []
        for stage, seconds in self.stages.items():
            plan_s, took_s = seconds["planned_s"], seconds["took_s"]
            planned = "" if plan_s is None else f" (planned {_exact(plan_s)})"
            parts.append(f"{stage} {_exact(took_s or 0.0)}{planned}")
        of = "" if self.budget_s is None else f" of {_exact(self.budget_s)}"
        return f"the study took {_exact(self.spent_s)}{of}: {', '.join(parts)}"

    def _learn(
        self, job: TrainingJob, genotypes: Sequence[Genotype], trials: Sequence[Trial]
    ) -> Speeds:
        self._speeds = speeds_of(
            self.settings,
            job,
            self.final_job,
            genotypes,
            trials,
            self.workers or 1,
            self.sample_s,
        )
        return self._speeds

    def begin_search(
        self, front: Front, trials: Sequence[Trial], verified: Collection[str]
    ) -> float:
        """Take note that the search begins.

        Args:
            front: Of trials, as the search sees it.
            trials: Of earlier runs.
            verified: `arch_id` of members whose verification takes no time any more.

        Returns:
            Seconds of the study before it, without those of the search in earlier runs.
        """
        self._front, self._verified = front, verified
        if self._speeds is None and trials and isinstance(self.job, TrainingJob):
            self._learn(self.job, (), trials)
        self._trials = {trial.number: trial for trial in trials}
        self._ran_s = max((trial.ended_s for trial in trials), default=0.0)
        self._before_s = self.spent_s - self._ran_s
        return self._before_s

    def search_ends_s(self, trials: Sequence[Trial]) -> float:
        """Return after how many seconds of search just the verification's time is left."""
        budget_s = self.budget_s
        if budget_s is None:
            return math.inf
        reserve_s = self._reserve(trials, budget_s)[1]
        return budget_s - ENDING_S - self._before_s - reserve_s

    def stop(self, trials: Sequence[Trial]) -> StopSettings:
        """Return the limits of the search as they are planned, given the trials so far."""
        stop, ends_s = self.settings.search.stop, self.search_ends_s(trials)
        if math.isinf(ends_s):
            return stop
        limit_s = min(max(ends_s, 1.0), stop.wall_clock_s or math.inf)
        return dataclasses.replace(stop, wall_clock_s=limit_s)

    def note(self, trial: Trial) -> None:
        """Say so where the plan has changed noticeably by what the search has found."""
        budget_s = self.budget_s
        if budget_s is None or trial.number in self._trials:
            return
        self._trials[trial.number] = trial
        trials = list(self._trials.values())
        members, reserve_s = self._reserve(trials, budget_s)
        if abs(reserve_s - self._said_s) > NOTICEABLE * budget_s:
            self._said_s = reserve_s
            ends = f"the search ends after {_exact(self.search_ends_s(trials))}"
            networks = counted(members, "network")
            self.say(f"new plan: {ends}, then {_exact(reserve_s)} of verification ({networks})")

    def _reserve(self, trials: Sequence[Trial], budget_s: float) -> tuple[int, float]:
        """Return how many members of the front are verified, and how long that takes."""
        limit = self.settings.finalise.limit
        if not limit:
            return 0, 0.0
        if self._speeds is None or self._front is None:
            return limit, VERIFICATION_SHARE * budget_s
        # The front is hardly known before half of the search, so the mean stands for its members.
        ran_s = max((trial.ended_s for trial in trials), default=0.0)
        final_s = self._final_s(trials, self._front(trials, limit))
        if ran_s < budget_s / 3 or not final_s:
            complete = [trial for trial in trials if trial.complete]
            each_s = mean_s(complete) if complete else self._speeds.candidate_s
            if each_s is None:
                return limit, VERIFICATION_SHARE * budget_s
            final_s = [self._speeds.final_ratio * each_s] * limit
        members = self._speeds.fitting(final_s, VERIFICATION_SHARE * budget_s)
        return members, self._speeds.verification_s(final_s[:members])

    def _final_s(self, trials: Sequence[Trial], arch_ids: Sequence[str]) -> list[float]:
        """Return how long the final trainings of some architectures take; 0 where it is done."""
        assert self._speeds is not None
        seconds: defaultdict[str, float] = defaultdict(float)
        for trial in trials:
            seconds[trial.arch_id] += trial.seconds
        seconds |= dict.fromkeys(self._verified, 0.0)
        return [self._speeds.final_ratio * seconds[arch_id] for arch_id in arch_ids]

    def verified(self, trials: Sequence[Trial], arch_ids: Sequence[str], least: int) -> int:
        """Say how long the verification of a front takes; return how many of its members it takes.

        Where some have been verified, they tell how far the estimate was off.

        Args:
            trials: Of the search.
            arch_ids: Of the members that are left, those first that are verified first.
            least: Members that are verified in any case.
        """
        speeds, budget_s = self._speeds, self.budget_s
        if speeds is None or not arch_ids:
            return len(arch_ids)
        if speeds.refit_ratio and not least:
            return 0  # the time that is left is the refit's
        final_s, number, share = self._final_s(trials, arch_ids), len(arch_ids), 1.0
        if self._verifying is not None:
            began, planned_s = self._verifying
            share = (time.monotonic() - began) / planned_s
        if budget_s is not None:
            room_s = (budget_s - ENDING_S - self.spent_s) / max(share, 1e-9)
            number = speeds.fitting(final_s, room_s, least)
        if number:
            planned_s = speeds.verification_s(final_s[:number])
            self._verifying = time.monotonic(), max(planned_s, 1e-9)
            of = f"{number} of " if number < len(final_s) else ""
            members = counted(len(final_s), "member" if least else "further member")
            takes = _exact(share * planned_s)
            self.say(f"verification of {of}{members} of the front: about {takes}")
        return number


def _exact(seconds: float) -> str:
    """Return a time so exactly that a tenth of it can be told."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
