"""What can be said of a search before it begins, or where it found nothing, in lines for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from latency_predictors import PredictorSettings
from nas.core.errors import CandidateFailure, counted
from nas.core.objective import Objective
from nas.core.recipe import Recipe
from nas.core.space import Genotype
from nas.core.trial import Job, Trial, full_trainings
from nas.search.feasibility import FeasibilityReport
from nas.search.problem import SearchProblem
from nas.search.stopping import Spent, seconds_left
from nas.study.reporting import duration
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob

PREPARED_S = 2.0
"""Seconds that exporting and loading a small network for its measurement takes, about."""

TIMED_SHARES = (0.25, 0.5, 0.75)
"""Networks whose training is timed: quantiles of the multiply-accumulate operations."""


def feasibility_lines(problem: SearchProblem, report: FeasibilityReport) -> list[str]:
    """Return what a report has found: a line for all limits, one for each, one for each range."""
    lines, used = [], {**problem.objectives, **problem.limited}
    if report.keeping:
        share = _share(len(report.feasible), report.samples)
        judged = len(report.keeping) == len(problem.constraints)
        limits = "every limit" if judged else "those limits that can be judged now"
        lines.append(f"{share} of {report.samples} random architectures keep {limits}")
    alone = all(report.keeping.values()) and len(report.keeping) > 1
    if alone and not report.feasible:
        lines.append("  each limit by itself can be kept: together they leave hardly anything")
    for constraint in problem.constraints:
        kept = report.keeping.get(constraint)
        if kept is not None:
            lines.append(f"  {constraint}: kept by {_share(kept, report.samples)}")
            continue
        ready = used[constraint.objective].ready(problem.facts)
        awaited = "training" if ready else "the device is calibrated"
        lines.append(f"  {constraint}: cannot be judged before {awaited}")
    for name, objective in used.items():
        lines.append(f"  {name}: {_range_text(name, objective, problem, report)}")
    return lines


def _range_text(
    name: str, objective: Objective, problem: SearchProblem, report: FeasibilityReport
) -> str:
    if not objective.ready(problem.facts):
        return "known once the device is calibrated"
    if name not in report.reach:
        return "known after training only"
    reach, within = report.reach[name], report.within.get(name)
    text = f"reaches from {reach.low:.4g} to {reach.high:.4g} {objective.unit}"
    if within is None or within == reach:
        return text
    return f"{text}; within the limits from {within.low:.4g} to {within.high:.4g}"


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.3g} %"


def calibration_line(settings: PredictorSettings) -> str:
    """Return what a calibration that has not been made would take."""
    samples, seconds = settings.samples, settings.seconds_per_sample
    return (
        "the device is not calibrated for this study: that would measure "
        f"{counted(samples, 'network')} for up to {seconds:g} s each "
        f"({duration(samples * seconds)}), and export them; those that were measured before are "
        "not measured again"
    )


def time_left(
    settings: StudySettings,
    job: Job,
    genotypes: Sequence[Genotype],
    trials: Sequence[Trial],
    workers: int | None,
    *,
    calibrated: bool,
) -> tuple[str, float]:
    """Estimate how long the stages of a study take that are left.

    Args:
        settings: Of the study.
        job: What evaluates candidates.
        genotypes: Candidates as they may come.
        trials: Those that have ended; where there are any, their seconds are the estimate.
        workers: Candidates at a time; `None` if that cannot be told yet.
        calibrated: Whether no calibration is left.

    Returns:
        A line for people, and the seconds of the last stage; 0 where nothing is known of it.
    """
    search, finalise, predictor = settings.search, settings.finalise, settings.predictor
    done = full_trainings(trials)
    left = max(search.evaluations - done, 0)
    if not isinstance(job, TrainingJob):
        looked_up = counted(round(left, 2), "candidate")
        return f"to be looked up, which takes simulated time only: {looked_up}", 0.0
    if trials:
        each_s = sum(trial.seconds for trial in trials) / done
        how = f"mean of {counted(len(trials), 'trial')} so far"
    elif settings.evaluation.on_gpus:  # which this process may not have
        why = "its candidates are trained on GPUs"
        return f"how long the search takes is not estimated: {why}", 0.0
    else:
        try:
            each_s = float(np.mean([job.estimated_seconds(g) for g in _spread(job, genotypes)]))
        except CandidateFailure as failure:
            why = f"a network failed ({failure})"
            return f"how long the search takes is not estimated: {why}", 0.0
        how = "a few steps of a small, a middle and a large network, each alone on this host"
    on = counted(workers or 1, "worker")
    spent = Spent().add(*trials)
    left_s = seconds_left(search.evaluations, search.stop, spent, each_s, workers or 1)
    left = min(left, round(left_s * (workers or 1) / max(each_s, 1e-9)))
    candidates = f"{counted(round(left, 2), 'candidate')} of {duration(each_s)} on {on}"
    stages_s = {f"search ({candidates})": left_s}
    verification_s = 0.0
    if finalise.limit:
        trained_s = each_s * _images(finalise.recipe, job) / _images(job.recipe, job)
        verification_s = math.ceil(finalise.limit / (workers or 1)) * trained_s
        members = counted(finalise.limit, "network")
        at_most = f"at most {members} of {duration(trained_s)} on {on}"
        stages_s[f"verification ({at_most})"] = verification_s
    if not calibrated:
        samples, seconds = predictor.samples, predictor.seconds_per_sample + PREPARED_S
        of = f"{counted(samples, 'network')} of {duration(seconds)}"
        stages_s = {f"calibration ({of})": samples * seconds, **stages_s}
    parts = ", ".join(f"{duration(seconds)} of {stage}" for stage, seconds in stages_s.items())
    total = duration(sum(stages_s.values()))
    return f"about {total} in all: {parts}; estimate: {how}", verification_s


def _images(recipe: Recipe, job: TrainingJob) -> int:
    """Return how many images a training sees, the same ones counted anew in every epoch."""
    return recipe.epochs * min(recipe.train_samples or len(job.train), len(job.train))


def _spread(job: TrainingJob, genotypes: Sequence[Genotype]) -> list[Genotype]:
    """Return a small, a middle and a large network."""
    order = np.argsort(job.space.costs(genotypes)["macs_m"].to_numpy(), kind="stable")
    return [genotypes[order[int(share * (len(order) - 1))]] for share in TIMED_SHARES]


def nothing_complete_line(trials: Sequence[Trial], stopped_by: str) -> str:
    """Return why a search that ended at the limit `stopped_by` has no front, and what to do."""
    if not trials:
        return "no trial is complete: every candidate breaks a limit when it is measured"
    [(cause, count)] = Counter(str(trial.failure) for trial in trials).most_common(1)
    often = f"{count} of {len(trials)} trials failed" if count > 1 else "failed"
    line = f"no trial is complete: {often}: {cause}"
    if stopped_by != "failures":
        return line
    fix = "mend that and give the study another name, or raise search.stop.failures to go on"
    return f"{line}; the search gave up, its trials are kept; {fix}"
