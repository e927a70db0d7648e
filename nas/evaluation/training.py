"""Evaluation by training every candidate on a Ray worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from nas.core.errors import ConfigError
from nas.core.host import usable_cores
from nas.core.recipe import Recipe
from nas.core.trial import Evaluator, Job
from nas.evaluation import CandidateTraining, EvaluationSettings, register


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(EvaluationSettings):
    """Evaluation on Ray workers.

    Attributes:
        threads_per_worker: Of torch, and processor cores that a worker takes.
        workers: Most candidates evaluated at a time; `None` for as many as the cluster has room
            for.
        gpus_per_worker: GPUs, or the share of one, that a worker takes; with 0 it uses none. On
            several, one process a GPU trains its part of every batch.
        time_limit_s: Seconds after which a candidate counts as failed.
    """

    threads_per_worker: int = 1
    workers: int | None = None
    gpus_per_worker: float = 0.0
    time_limit_s: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_worker", "time_limit_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"evaluation.{name}", value, "more than 0")
        if self.gpus_per_worker < 0 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            expected = "a share between 0 and 1, or a whole number"
            raise ConfigError("evaluation.gpus_per_worker", self.gpus_per_worker, expected)

    @property
    def threads(self) -> int:
        return self.threads_per_worker

    @property
    def on_gpus(self) -> bool:
        return self.gpus_per_worker > 0

    @property
    def processes(self) -> int:
        return max(int(self.gpus_per_worker), 1)

    def memory_share(self, *, here: bool) -> float:
        if self.on_gpus:
            return min(self.gpus_per_worker, 1.0)
        workers = self.workers_here() if here else None
        return 1 / (workers or 1)

    def workers_here(self) -> int | None:
        if self.on_gpus:
            return None
        room = max(usable_cores() // self.threads_per_worker, 1)
        return room if self.workers is None else min(room, self.workers)

    def connected(self, address: str | None) -> AbstractContextManager[None]:
        from nas.cluster.connection import connected

        return connected(address)

    def start(self, job: Job, *, limited: bool = True) -> Evaluator:
        from nas.cluster.ray_evaluator import RayEvaluator

        return RayEvaluator(
            job,
            workers=self.workers,
            cpus_per_worker=self.threads_per_worker,
            gpus_per_worker=self.gpus_per_worker,
            time_limit_s=self.time_limit_s if limited else math.inf,
        )


@dataclass(frozen=True, kw_only=True)
class JudgingSettings(WorkerSettings):
    """Evaluation by errors on validation images.

    Attributes:
        validation_images: How many of them a candidate is judged on, the same ones for all; `None`
            for all. Fewer are faster, and tell less. The front is judged on all.
    """

    validation_images: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_images is not None and self.validation_images < 1:
            setting, got = "evaluation.validation_images", self.validation_images
            raise ConfigError(setting, got, "1 or more, or null for all")

    def judged(self, validation: int) -> int:
        return min(validation, self.validation_images or validation)

    def judging(self, job: CandidateTraining) -> CandidateTraining:
        """Return a job that judges on so many validation images."""
        if self.validation_images is None:
            return job
        return job.with_held_out(job.held_out.drawn(self.validation_images, seed=0))


@register("training")
@dataclass(frozen=True, kw_only=True)
class TrainingSettings(JudgingSettings):
    """Stand-alone training on Ray.

    Attributes:
        recipe: How candidates are trained.
        inherit: Whether a candidate begins with the weights of the most similar one that has been
            trained, so that shorter trainings tell candidates apart.
    """

    recipe: Recipe = field(default_factory=Recipe)
    inherit: bool = False

    def job(self, training: Callable[[Recipe], CandidateTraining], *, partial: bool = False) -> Job:
        del partial
        return self.judging(training(self.recipe))

    @property
    def inherits(self) -> bool:
        return self.inherit
