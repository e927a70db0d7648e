"""Evaluation by looking up what others have published, on simulated workers."""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas import tables
from nas.core.errors import CandidateFailure, ConfigError
from nas.core.prediction import FloatArray
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Evaluation, Evaluator, Job, Outcome
from nas.evaluation import CandidateTraining, EvaluationSettings, register
from nas.tables import Table


@register("tabular")
@dataclass(frozen=True, kw_only=True)
class TabularSettings(EvaluationSettings):
    """Answers of a published table, in simulated time: a search takes as long as its records.

    Attributes:
        table: Name of the table.
        dataset: Of the table.
        epochs: Of the published training whose error counts; 0 for the longest.
        workers: Candidates evaluated at a time, in simulated time.
    """

    table: str = "nasbench201"
    dataset: str = "cifar10"
    epochs: int = 0
    workers: int = 8

    def __post_init__(self) -> None:
        table = tables.get(self.table)
        longest = max(table.dataset(self.dataset).splits)
        object.__setattr__(self, "epochs", self.epochs or longest)
        table.split(self.dataset, self.epochs)
        if self.workers < 1:
            raise ConfigError("evaluation.workers", self.workers, "1 or more")

    @property
    def published(self) -> Mapping[str, str]:
        table = tables.get(self.table)
        split = table.split(self.dataset, self.epochs)
        after = f" after {self.epochs} epochs" if self.epochs else ""
        timed = table.seconds(self.dataset, self.epochs) is not None
        seconds = (
            "those of the published training" if timed else "one a training: none is published"
        )
        return {
            "error": f"published {split} error on {self.dataset}{after}",
            "seconds": f"simulated seconds, {seconds}",
            **table.published,
        }

    def job(self, training: Callable[[Recipe], CandidateTraining], *, partial: bool = False) -> Job:
        del training, partial
        return PublishedJob(tables.get(self.table), self.dataset, self.epochs)

    @contextlib.contextmanager
    def connected(self, address: str | None) -> Iterator[None]:
        if address is not None:
            raise ConfigError("ray.address", address, "null", "a table needs no cluster")
        yield

    def start(self, job: Job, *, limited: bool = True) -> Evaluator:
        del limited
        return SimulatedEvaluator(job, self.workers)


@dataclass(frozen=True)
class PublishedJob:
    """Answers with a candidate's own row of a table.

    A share of the full training is the published training of so many epochs. That is a training of
    its own, with its own schedule, so a longer one later does not go on from it and costs its whole
    time.

    Attributes:
        table: The table.
        dataset: Of the table.
        epochs: Of the full training.
    """

    table: Table
    dataset: str
    epochs: int

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Return `error` in percent, and the `seconds` that the training took, or 1."""
        del deadline
        row = self.table.rows([candidate.genotype])[0]
        error, seconds = self._columns[round(candidate.fidelity * self.epochs)]
        return Outcome(metrics={"error": float(error[row]), "seconds": float(seconds[row])})

    @cached_property
    def _columns(self) -> dict[int, tuple[FloatArray, FloatArray]]:
        """Errors and seconds of all rows, by the epochs of the training."""
        table, name = self.table, self.dataset
        published = table.dataset(name).splits
        columns = {}
        for epochs in published:
            error, seconds = table.error(name, epochs), table.seconds(name, epochs)
            columns[epochs] = error, np.ones(len(error)) if seconds is None else seconds
        return columns


class SimulatedEvaluator(Evaluator):
    """Runs a job at once and reports it when simulated workers would have been through with it.

    Simulated time passes in `completed` only. A worker is given its next candidate when it is
    free, in the order of submission; candidates that end together are reported together. No
    candidate is cut, since a table has no results of the trainings' parts.
    """

    def __init__(self, job: Job, workers: int) -> None:
        """Simulate a number of workers.

        Args:
            job: Says in the metric `seconds` how long it would have taken.
            workers: How many candidates run at the same time.
        """
        self._job = job
        self._now_s = 0.0
        self._free_s = [0.0] * workers
        self._ending: list[tuple[float, int, Evaluation]] = []

    @property
    def workers(self) -> int:
        return len(self._free_s)

    def submit(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            evaluation = self._evaluate(candidate)
            starts_s = max(self._now_s, heapq.heappop(self._free_s))
            ends_s = starts_s + evaluation.seconds
            heapq.heappush(self._free_s, ends_s)
            heapq.heappush(self._ending, (ends_s, candidate.number, evaluation))

    def completed(self) -> list[Evaluation]:
        evaluations: list[Evaluation] = []
        if self._ending:
            self._now_s = self._ending[0][0]
        while self._ending and self._ending[0][0] == self._now_s:
            evaluations.append(heapq.heappop(self._ending)[2])
        return evaluations

    def clock(self) -> float:
        return self._now_s

    def close(self) -> None:
        self._ending.clear()

    def _evaluate(self, candidate: Candidate) -> Evaluation:
        try:
            outcome = self._job(candidate, math.inf)
        except CandidateFailure as failure:
            return Evaluation(candidate=candidate, seconds=0.0, failure=str(failure))
        seconds = outcome.metrics["seconds"]
        return Evaluation(candidate=candidate, seconds=seconds, outcome=outcome)
