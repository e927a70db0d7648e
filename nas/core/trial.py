"""Candidates on their way to a worker, and the trials that come back."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from nas.core.space import Genotype

FULL = 1.0
"""The fidelity of a whole training."""


@dataclass(frozen=True)
class Parent:
    """A trained architecture whose weights a candidate begins with, as far as they fit.

    Attributes:
        number: Of its trial.
        genotype: Canonical genotype.
        weights: As safetensors.
    """

    number: int
    genotype: Genotype
    weights: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An architecture to be evaluated.

    Attributes:
        number: Position in the order in which the search asked, from 0.
        genotype: Canonical genotype.
        arch_id: Identity of the architecture.
        seed: Of its training.
        fidelity: Share of the full training that it is to have had at the end, in (0, 1].
        checkpoint: Where an earlier part of its training ended, as the job that ran it returned
            it; `None` to train from the start.
        cut_after_s: Seconds after its beginning on a worker at which its training is cut; `None`
            for never.
        parent: Whose weights its training begins with; `None` for initial weights.
    """

    number: int
    genotype: Genotype
    arch_id: str
    seed: int
    fidelity: float = FULL
    checkpoint: bytes | None = None
    cut_after_s: float | None = None
    parent: Parent | None = None


History = tuple[Mapping[str, float], ...]
"""One record an epoch of a training; see `Outcome.history`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job made of one candidate.

    Attributes:
        metrics: What was measured (`error`: error in percent).
        weights: The trained weights as safetensors, where the job hands them out.
        checkpoint: What a later part of the training goes on from, where one may come.
        cut_at: Share of the full training that it had had when it was cut, less than was asked
            for; `None` if it was not cut.
        details: What a report shows beside the metrics, where the job was to judge a network; see
            `Task.details`.
        precision: Of the arithmetic in which a network was trained: `fp32`, `bf16` or `fp16`.
        history: One record an epoch, by name: `epoch` (from 1), `images_per_s`, `loss` (mean over
            the epoch), and the metrics of the task in epochs after which they were taken.
    """

    metrics: Mapping[str, float]
    weights: bytes | None = None
    checkpoint: bytes | None = None
    cut_at: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None
    history: History = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of one candidate on a worker.

    Attributes:
        candidate: The candidate.
        seconds: Wall-clock seconds that the candidate occupied its worker.
        outcome: What the job returned, unless the candidate failed.
        failure: `cause: detail` of a candidate that failed, else `None`.
    """

    candidate: Candidate
    seconds: float
    outcome: Outcome | None = None
    failure: str | None = None


# With slots: a search keeps all its trials in memory.
@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One evaluated architecture, as the ledger holds it.

    An architecture that is trained further is a further trial, with a number of its own; also where
    its training had been cut.

    Attributes:
        number: Position in the order in which the search asked, from 0.
        genotype: Canonical genotype.
        arch_id: Identity of the architecture.
        seed: Of its training.
        fidelity: Share of the full training that it had had when it was evaluated, in (0, 1].
        values: Value of every objective of the study by the objective's name; empty if it failed.
        facts: Further columns (`params_m`, `macs_m`, `latency_ms_predicted_std`, ...).
        seconds: Seconds that its evaluation took.
        ended_s: When it ended, in seconds that the search had run by then, all its runs together.
            Trials that were reported together have equal times.
        failure: `cause: detail` if it failed, else `None`.
        cut: Whether a limit of time cut its training before the fidelity that was asked for.
    """

    number: int
    genotype: Genotype
    arch_id: str
    seed: int
    fidelity: float = FULL
    values: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    # When a trial ended says nothing about the architecture: equal trials may differ in it.
    ended_s: float = field(default=0.0, compare=False)
    failure: str | None = None
    cut: bool = False

    @property
    def complete(self) -> bool:
        """Whether the evaluation succeeded."""
        return self.failure is None

    @property
    def full(self) -> bool:
        """Whether the architecture had its full training: only such trials make a front."""
        return self.fidelity == FULL


@dataclass(frozen=True, kw_only=True)
class RunSegment:
    """A part of an asynchronous search between two interruptions.

    Attributes:
        asked: Candidates that were asked for before it.
        told: Trials that had ended before it.
        lookahead: Candidates that are evaluated at a time.
    """

    asked: int
    told: int
    lookahead: int


class Job(Protocol):
    """The work that an evaluator sends to its workers; must be serialisable by Ray.

    Raises `CandidateFailure` where the candidate cannot be evaluated.
    """

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Evaluate `candidate` before the `time.monotonic()` deadline.

        A job may ignore `candidate.cut_after_s`; the candidate is then finished.
        """


class Evaluator(ABC):
    """Runs candidates on workers."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many candidates run at the same time."""

    @abstractmethod
    def submit(self, candidates: Sequence[Candidate]) -> None:
        """Queue candidates; returns at once."""

    @abstractmethod
    def completed(self) -> list[Evaluation]:
        """Wait until at least one queued candidate has ended; return all that have.

        Returns an empty list where nothing is queued, or nothing is begun any more. A candidate
        that crashes, diverges or outlives its time limit comes back with its `failure`; nothing is
        raised for it.
        """

    def end_at(self, clock_s: float) -> None:
        """Cut what runs at a time of `clock`, and begin nothing then.

        A candidate that was cut comes back with an outcome whose `cut_at` says how far it came; one
        that was not begun does not come back. It holds for candidates that begin after this call.
        By default it is ignored: what is submitted is finished.
        """
        del clock_s

    def clock(self) -> float:
        """Return the time in seconds, from any zero; simulated workers have their own time."""
        return time.monotonic()

    @abstractmethod
    def close(self) -> None:
        """Cancel what still runs and release the workers."""


def full_trainings(trials: Iterable[Trial]) -> float:
    """Return how many full trainings the trials amount to.

    A training that goes on from its checkpoint costs the difference, so of each architecture the
    highest fidelity counts.
    """
    reached: dict[str, float] = {}
    for trial in trials:
        reached[trial.arch_id] = max(trial.fidelity, reached.get(trial.arch_id, 0.0))
    return math.fsum(reached.values())


class SearchAlgorithm(ABC):
    """Chooses genotypes; never sees torch or Ray.

    Attributes:
        multi_fidelity: Whether it is told partial trainings as well; else full ones and failures.
    """

    multi_fidelity: ClassVar[bool] = False

    @abstractmethod
    def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
        """Propose `n` new canonical genotypes; fewer where the space is exhausted.

        What is proposed depends on the seed and on the calls so far, with their arguments and in
        their order, and on nothing else, so that replaying a ledger reproduces a search.

        Args:
            n: How many.
            pending: All candidates that are being evaluated, whoever proposed them: their trials
                have not been told yet. A proposal that is not among them at the next call, and was
                not told either, was refused and will not be evaluated.

        Returns:
            Genotypes that were neither proposed nor told nor pending before, all different.
        """

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """Take note of trials that have ended, failed ones included."""
