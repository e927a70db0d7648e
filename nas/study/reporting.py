"""What a study tells people: who is told, what a search can reach, and how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from latency_predictors import PredictorSettings
from nas.core.errors import CandidateFailure
from nas.core.objective import Constraint, Objective
from nas.core.space import Genotype
from nas.core.trial import Job, Trial, full_trainings
from nas.search.feasibility import FeasibilityReport
from nas.search.problem import SearchProblem
from nas.search.stopping import StopSettings, seconds_left
from nas.training.job import TrainingJob

TIMED_SHARES = (0.25, 0.5, 0.75)
"""Networks whose training is timed: quantiles of the multiply-accumulate operations."""


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


def feasibility_lines(problem: SearchProblem, report: FeasibilityReport) -> list[str]:
    """Return what a report has found: a line for all limits, one for each, one for each range."""
    lines = []
    if report.keeping:
        share = _share(len(report.feasible), report.samples)
        judged = len(report.keeping) == len(problem.constraints)
        limits = "every limit" if judged else "those limits that can be judged now"
        lines.append(f"{share} of {report.samples} random architectures keep {limits}")
    alone = all(report.keeping.values()) and len(report.keeping) > 1
    if alone and not report.feasible:
        lines.append("  each limit by itself can be kept: together they leave hardly anything")
    lines += [f"  {_limit_line(constraint, problem, report)}" for constraint in problem.constraints]
    for name, objective in {**problem.objectives, **problem.limited}.items():
        lines.append(f"  {_range_line(name, objective, problem, report)}")
    return lines


def _limit_line(constraint: Constraint, problem: SearchProblem, report: FeasibilityReport) -> str:
    kept = report.keeping.get(constraint)
    if kept is None:
        return f"{constraint}: cannot be judged before {_awaited(problem, constraint.objective)}"
    return f"{constraint}: kept by {_share(kept, report.samples)}"


def _awaited(problem: SearchProblem, name: str) -> str:
    """Return what has to happen before a value is known."""
    objective = {**problem.objectives, **problem.limited}[name]
    return "training" if objective.ready(problem.facts) else "the device is calibrated"


def _range_line(
    name: str, objective: Objective, problem: SearchProblem, report: FeasibilityReport
) -> str:
    if not objective.ready(problem.facts):
        return f"{name}: known once the device is calibrated"
    if name not in report.reach:
        return f"{name}: known after training only"
    reach, within = report.reach[name], report.within.get(name)
    line = f"{name}: reaches from {reach.low:.4g} to {reach.high:.4g} {objective.unit}"
    if within is None or within == reach:
        return line
    return f"{line}; within the limits from {within.low:.4g} to {within.high:.4g}"


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.3g} %"


def calibration_line(settings: PredictorSettings) -> str:
    """Return what a calibration that has not been made would take."""
    samples, seconds = settings.samples, settings.seconds_per_sample
    return (
        f"the device is not calibrated for this study: that would measure {samples} networks for "
        f"up to {seconds:g} s each ({duration(samples * seconds)}), and export them; those that "
        "were measured before are not measured again"
    )


def time_line(
    job: Job,
    genotypes: Sequence[Genotype],
    trials: Sequence[Trial],
    *,
    evaluations: int,
    stop: StopSettings,
    workers: int | None,
    gpus: bool,
) -> str:
    """Return how long the rest of a search takes, and how that was estimated.

    Args:
        job: What evaluates candidates.
        genotypes: Candidates as they may come.
        trials: Those that have ended; where there are any, their seconds are the estimate.
        evaluations: Full trainings at which the search ends.
        stop: Its other limits.
        workers: Candidates at a time; `None` if that cannot be told yet.
        gpus: Whether candidates are trained on GPUs, which this process may not have.
    """
    done = full_trainings(trials)
    left = max(evaluations - done, 0)
    if not isinstance(job, TrainingJob):
        return f"{left:.4g} candidates are looked up, which takes simulated time only"
    if trials:
        each_s = sum(trial.seconds for trial in trials) / done
        how = f"mean of the {len(trials)} trials so far"
    elif gpus:
        return "how long the search takes is not estimated: its candidates are trained on GPUs"
    else:
        try:
            each_s = float(np.mean([job.estimated_seconds(g) for g in _spread(job, genotypes)]))
        except CandidateFailure as failure:
            return f"how long the search takes is not estimated: a network failed ({failure})"
        how = "a few steps of a small, a middle and a large network, each alone on this host"
    on = "one worker" if workers in (None, 1) else f"{workers} workers"
    left_s = seconds_left(evaluations, stop, trials, each_s, workers or 1)
    left = min(left, round(left_s * (workers or 1) / max(each_s, 1e-9)))
    line = (
        f"about {duration(left_s)} of search: {left:.4g} candidates of {duration(each_s)} on {on}"
    )
    return f"{line} (estimate: {how})"


def _spread(job: TrainingJob, genotypes: Sequence[Genotype]) -> list[Genotype]:
    """Return a small, a middle and a large network."""
    order = np.argsort(job.space.costs(genotypes)["macs_m"].to_numpy(), kind="stable")
    return [genotypes[order[int(share * (len(order) - 1))]] for share in TIMED_SHARES]


def nothing_complete_line(trials: Sequence[Trial], stopped_by: str) -> str:
    """Return why a search has no front, and what to do about it.

    Args:
        trials: All of them; none is complete.
        stopped_by: The limit at which the search ended.
    """
    if not trials:
        return "no trial is complete: every candidate breaks a limit when it is measured"
    [(cause, count)] = Counter(str(trial.failure) for trial in trials).most_common(1)
    often = f"{count} of {len(trials)} trials failed" if count > 1 else "failed"
    line = f"no trial is complete: {often}: {cause}"
    if stopped_by != "failures":
        return line
    fix = "mend that and give the study another name, or raise search.stop.failures to go on"
    return f"{line}; the search gave up, its trials are kept; {fix}"
