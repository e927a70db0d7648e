"""The time of a study: what its stages take, and how they are planned into a budget.

A plan is made of estimated speeds before anything has been measured, and of measured ones after.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from latency_predictors.calibration.sampling import PREPARED_S, samples_within
from nas.core.errors import CandidateFailure, ConfigError, counted
from nas.core.recipe import Recipe
from nas.core.space import Genotype
from nas.core.trial import Trial, full_trainings
from nas.results.study import PICKS
from nas.search.stopping import Spent, seconds_left
from nas.study.reporting import duration
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob

CALIBRATION_SHARE = 0.15
"""Share of a budget that a calibration takes at most, unless too few networks would be measured."""

VERIFICATION_SHARE = 1 / 3
"""Share of a budget that is kept for the verification at most, unless one network takes longer."""

LEAST_CANDIDATES = 4
"""Candidates that a search must have time for."""

DEPLOYED_S = 4.0
"""Seconds, beside those of a sample of the calibration, in which a trained network is exported,
compared and tested."""

ENDING_S = 5.0
"""Seconds that are kept for what belongs to no stage: cutting trainings, plotting, ending Ray."""

TIMED_SHARES = (0.25, 0.5, 0.75)
"""Networks whose training is timed: quantiles of the multiply-accumulate operations."""

STAGES = ("calibration", "search", "verification")


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """How long the parts of a study take.

    Attributes:
        candidate_s: Seconds that a full training of the search occupies its worker; `None` where
            nothing is known of it yet.
        final_ratio: How many times as long a final training takes.
        sample_s: Seconds that a network of the calibration takes.
        workers: Candidates at a time.
        how: What they rest on.
        seeds: How often each network is verified.
        refit_ratio: How many times as long as its final training a network's refit takes; 0 where
            none is refitted.
    """

    candidate_s: float | None
    final_ratio: float
    sample_s: float
    workers: int
    how: str
    seeds: int = 1
    refit_ratio: float = 0.0

    @property
    def final_s(self) -> float | None:
        """Seconds of a final training of a network like those of the search."""
        return None if self.candidate_s is None else self.final_ratio * self.candidate_s

    def verification_s(self, final_s: Sequence[float]) -> float:
        """Return how long some networks take to be verified, the largest being trained first.

        Which ones are refitted is not known before, so it is assumed of the largest.

        Args:
            final_s: Seconds of their trainings, each alone on a worker; 0 of those that have been
                verified.
        """
        trainings_s = sorted((seconds for seconds in final_s if seconds), reverse=True)
        rounds_s = [trainings_s] * self.seeds
        if self.refit_ratio:
            rounds_s.append([self.refit_ratio * seconds for seconds in trainings_s[: len(PICKS)]])
        total_s = 0.0
        for round_s in rounds_s:
            free_s = [0.0] * self.workers
            for seconds in round_s:
                heapq.heappush(free_s, heapq.heappop(free_s) + seconds)
            total_s += max(free_s) + len(round_s) * (self.sample_s + DEPLOYED_S)
        return total_s

    def fitting(self, final_s: Sequence[float], room_s: float, least: int = 1) -> int:
        """Return how many networks, the first ones, are verified in `room_s`.

        Args:
            final_s: Seconds of their trainings, each alone on a worker.
            room_s: Seconds that there are.
            least: Networks that are verified in any case.
        """
        numbers = range(len(final_s), least, -1)
        fit = (n for n in numbers if self.verification_s(final_s[:n]) <= room_s)
        return next(fit, min(len(final_s), least))


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """What is left of a study, in stages; a stage that is over takes 0 s.

    Attributes:
        samples: Networks that are measured for the calibration.
        calibration_s: Seconds of the calibration.
        candidates: Full trainings of the search; `None` where that is not known.
        search_s: Seconds of the search.
        members: Networks that are verified, at most.
        verification_s: Seconds of the verification.
    """

    samples: int
    calibration_s: float
    candidates: float | None
    search_s: float
    members: int
    verification_s: float

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds by stage, those of `STAGES`."""
        return dict(
            zip(STAGES, (self.calibration_s, self.search_s, self.verification_s), strict=True)
        )

    def line(self, speeds: Speeds, budget_s: float | None) -> str:
        """Return the plan for people."""
        on = counted(speeds.workers, "worker")
        of = "" if speeds.candidate_s is None else f" of {duration(speeds.candidate_s)}"
        number = "as many candidates as fit"
        if self.candidates is not None:
            number = counted(round(self.candidates, 2 if self.candidates < 1 else 0), "candidate")
        details = {
            "calibration": f"{counted(self.samples, 'network')} of {duration(speeds.sample_s)}",
            "search": f"{number}{of} on {on}",
            "verification": f"at most {counted(self.members, 'network')}"
            + ("" if speeds.final_s is None else f" of {duration(speeds.final_s)} on {on}"),
        }
        counts = {"calibration": self.samples, "search": 1, "verification": self.members}
        parts = (
            f"{duration(seconds)} of {stage} ({details[stage]})"
            for stage, seconds in self.stages_s.items()
            if counts[stage]
        )
        total = duration(sum(self.stages_s.values()))
        within = "" if budget_s is None else f", of a budget of {duration(budget_s)}"
        return f"about {total} in all{within}: {', '.join(parts)}; estimate: {speeds.how}"


def planned(
    settings: StudySettings,
    speeds: Speeds,
    trials: Sequence[Trial],
    *,
    calibrated: bool,
    budget_s: float | None = None,
    spent_s: float = 0.0,
    begins: bool = True,
) -> TimePlan:
    """Plan what is left of a study.

    Args:
        settings: Of the study.
        speeds: Of its parts; where the candidates' is not known, there must be a budget.
        trials: Those that have ended.
        calibrated: Whether no calibration is left.
        budget_s: Seconds of the whole study; `None` for no limit.
        spent_s: Seconds of it that are over.
        begins: Whether the study may still be refused, as nothing has been measured or trained.

    Raises:
        ConfigError: A study that begins does not fit into the budget.
    """
    members, candidate_s = settings.finalise.limit, speeds.candidate_s
    samples = 0 if calibrated else settings.predictor.samples
    final_s = [speeds.final_ratio * (candidate_s or 0.0)] * members
    search_s, candidates = math.inf, None
    if candidate_s is not None:
        spent, stop = Spent().add(*trials), settings.search.stop
        search_s = seconds_left(settings.evaluations, stop, spent, candidate_s, speeds.workers)
    if budget_s is not None:
        if not calibrated:
            room_s = CALIBRATION_SHARE * budget_s
            samples = samples_within(settings.predictor, room_s, speeds.sample_s)
        left_s = budget_s - ENDING_S - spent_s - samples * speeds.sample_s
        least_s = _least_s(settings, speeds) if begins else 0.0
        most_s = VERIFICATION_SHARE * budget_s
        members = speeds.fitting(final_s, min(most_s, left_s - least_s))
        verification_s = most_s if candidate_s is None else speeds.verification_s(final_s[:members])
        left_s -= verification_s
        if left_s < least_s and begins:
            needed_s = budget_s + (least_s - left_s) / (1 - CALIBRATION_SHARE)
            raise _too_little(settings, speeds, members, needed_s)
        search_s = max(min(search_s, left_s), 0.0)
    else:
        verification_s = speeds.verification_s(final_s)
    if candidate_s is not None:
        left = max(settings.evaluations - full_trainings(trials), 0.0)
        candidates = min(left, search_s * speeds.workers / candidate_s)
    return TimePlan(
        samples=samples,
        calibration_s=samples * speeds.sample_s,
        candidates=candidates,
        search_s=search_s,
        members=members,
        verification_s=verification_s,
    )


def _least_s(settings: StudySettings, speeds: Speeds) -> float:
    """Return the seconds of the shortest search that is worth one."""
    rounds = math.ceil(min(LEAST_CANDIDATES, settings.evaluations) / speeds.workers)
    return rounds * (speeds.candidate_s or 0.0)


def _too_little(
    settings: StudySettings, speeds: Speeds, members: int, needed_s: float
) -> ConfigError:
    step_s = 1 if needed_s < 90 else 60 if needed_s < 5400 else 360  # as `duration` shows it
    candidate, final = duration(speeds.candidate_s or 0.0), duration(speeds.final_s or 0.0)
    trained = f"{LEAST_CANDIDATES} candidates of {candidate}"
    if members:
        trained += f" and {counted(members, 'final training')} of {final}"
    return ConfigError(
        "budget",
        settings.budget,
        f"at least {duration(step_s * math.ceil(needed_s / step_s))}: the calibration, {trained} "
        f"on {counted(speeds.workers, 'worker')}",
        "lower evaluation.recipe.epochs and finalise.recipe.epochs, or raise it",
    )


def speeds_of(
    settings: StudySettings,
    job: TrainingJob,
    final_job: TrainingJob | None,
    genotypes: Sequence[Genotype],
    trials: Sequence[Trial],
    workers: int,
    sample_s: float | None,
) -> Speeds:
    """Return the speeds as they are known: of trials, else of some timed steps on this host.

    Args:
        settings: Of the study.
        job: What trains candidates.
        final_job: What trains the front's members; `None` where it is to be told by images alone.
        genotypes: Candidates as they may come.
        trials: Those that have ended.
        workers: Candidates at a time.
        sample_s: Seconds that a network of the calibration took, if that is known.
    """
    if sample_s is None:
        sample_s = settings.predictor.seconds_per_sample + PREPARED_S
    candidate_s: float | None = None
    if trials:
        candidate_s = mean_s(trials)
        how = f"mean of {counted(len(trials), 'trial')} so far"
    elif settings.evaluation.on_gpus:  # which this process may not have
        how = "none of the search before its first trial, as candidates are trained on GPUs"
    else:
        try:
            each_s = [job.estimated_seconds(genotype) for genotype in _spread(job, genotypes)]
            candidate_s = max(float(np.mean(each_s)), 1e-9)
            how = "a few steps of a small, a middle and a large network, each alone on this host"
        except CandidateFailure as failure:
            how = f"none of the search before its first trial, as a network failed ({failure})"
    final_ratio = _images(settings.finalise.recipe, job) / max(_images(job.recipe, job), 1)
    known = genotypes or [trial.genotype for trial in trials]
    if final_job is not None and not _alike(final_job.recipe, job.recipe) and known:
        # A step takes longer by another optimizer, in smaller batches or with a teacher.
        with contextlib.suppress(CandidateFailure):
            middle = _spread(job, known)[1]
            final_ratio = _fastest_s(final_job, middle) / _fastest_s(job, middle)
    refit_ratio = 0.0
    if settings.finalise.refit:
        refit_ratio = 1 + len((final_job or job).held_out) / max(len(job.train), 1)
    return Speeds(
        candidate_s=candidate_s,
        final_ratio=final_ratio,
        sample_s=sample_s,
        workers=workers,
        how=how,
        seeds=settings.finalise.seeds,
        refit_ratio=refit_ratio,
    )


def mean_s(trials: Sequence[Trial]) -> float:
    """Return the seconds of a full training, given one trial or more."""
    return max(sum(trial.seconds for trial in trials) / full_trainings(trials), 1e-9)


def _fastest_s(job: TrainingJob, genotype: Genotype) -> float:
    """Return the shorter of two estimates: one may have waited for a measurement on this host."""
    return min(job.estimated_seconds(genotype) for _ in range(2))


def _alike(first: Recipe, second: Recipe) -> bool:
    """Return whether an image takes as long by both recipes, which both train."""
    if not (first.epochs and second.epochs):
        return False
    one, other = (replace(r, preset="full", epochs=1, train_samples=None) for r in (first, second))
    return one == other


def _images(recipe: Recipe, job: TrainingJob) -> int:
    """Return how many images a training sees, the same ones counted anew in every epoch."""
    return recipe.epochs * min(recipe.train_samples or len(job.train), len(job.train))


def _spread(job: TrainingJob, genotypes: Sequence[Genotype]) -> list[Genotype]:
    """Return a small, a middle and a large network."""
    order = np.argsort(job.space.costs(genotypes)["macs_m"].to_numpy(), kind="stable")
    return [genotypes[order[int(share * (len(order) - 1))]] for share in TIMED_SHARES]
