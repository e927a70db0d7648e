"""Candidates on Ray workers."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray import exceptions

from nas.core.errors import CandidateFailure, ConfigError
from nas.core.trial import Candidate, Evaluation, Evaluator, Job, Outcome

KILL_AFTER_S = 60.0
"""Seconds beyond its time limit after which a worker that does not stop by itself is killed."""


class RayEvaluator(Evaluator):
    """Runs one job per candidate as a Ray task.

    A task keeps the processor cores that it was given, so as many run at a time as the cluster
    has room for. Nothing is retried: a candidate that takes its worker down would do so again.
    """

    def __init__(
        self,
        job: Job,
        *,
        workers: int | None,
        cpus_per_worker: int,
        gpus_per_worker: float,
        time_limit_s: float,
    ) -> None:
        """Ship the job to the cluster that this process is connected to, once.

        Args:
            job: What to do with a candidate.
            workers: Candidates at a time; `None` for as many as there is room for.
            cpus_per_worker: Processor cores of a worker.
            gpus_per_worker: GPUs of a worker.
            time_limit_s: Seconds after which a candidate fails.

        Raises:
            ConfigError: There is not enough room in the cluster for one worker.
        """
        self._workers = _room(cpus_per_worker, gpus_per_worker, workers)
        self._time_limit_s = time_limit_s
        self._job = ray.put(job)
        self._task = ray.remote(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker, max_retries=0)(
            _run
        )
        self._queued: deque[Candidate] = deque()
        self._running: dict[Any, tuple[Candidate, float]] = {}

    @property
    def workers(self) -> int:
        """How many candidates run at the same time."""
        return self._workers

    def submit(self, candidates: Sequence[Candidate]) -> None:
        """Queue candidates; see `Evaluator.submit`."""
        self._queued.extend(candidates)
        self._fill()

    def completed(self) -> list[Evaluation]:
        """Wait for candidates to end; see `Evaluator.completed`."""
        evaluations: list[Evaluation] = []
        while self._running and not evaluations:
            first_kill = min(started for _, started in self._running.values())
            first_kill += self._time_limit_s + KILL_AFTER_S
            timeout = max(first_kill - time.monotonic(), 0)
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
            evaluations += [self._collect(task) for task in done]
            evaluations += self._kill_overdue()
            self._fill()
        return evaluations

    def close(self) -> None:
        """Cancel what still runs."""
        self._queued.clear()
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()

    def _fill(self) -> None:
        while self._queued and len(self._running) < self._workers:
            candidate = self._queued.popleft()
            task = self._task.remote(self._job, candidate, self._time_limit_s)
            self._running[task] = candidate, time.monotonic()

    def _collect(self, task: Any) -> Evaluation:
        candidate, started = self._running.pop(task)
        try:
            outcome, failure, seconds = ray.get(task)
        except exceptions.RayError as error:
            outcome, failure = None, str(_failure(error))
            seconds = time.monotonic() - started
        return Evaluation(candidate=candidate, outcome=outcome, failure=failure, seconds=seconds)

    def _kill_overdue(self) -> list[Evaluation]:
        now = time.monotonic()
        limit = self._time_limit_s + KILL_AFTER_S
        overdue = [t for t, (_, started) in self._running.items() if now - started >= limit]
        evaluations = []
        for task in overdue:
            ray.cancel(task, force=True)
            candidate, started = self._running.pop(task)
            failure = CandidateFailure(
                "timeout",
                f"killed after {now - started:.0f} s, the limit is {self._time_limit_s:g}",
            )
            evaluations.append(
                Evaluation(candidate=candidate, failure=str(failure), seconds=now - started)
            )
        return evaluations


def _run(
    job: Job, candidate: Candidate, time_limit_s: float
) -> tuple[Outcome | None, str | None, float]:
    """Run the job on a worker; a failure that the job reports itself comes back as text."""
    started = time.monotonic()
    try:
        outcome, failure = job(candidate, started + time_limit_s), None
    except CandidateFailure as error:
        outcome, failure = None, str(error)
    return outcome, failure, time.monotonic() - started


def _failure(error: exceptions.RayError) -> CandidateFailure:
    """Return why a task did not return: the job raised, or its worker died."""
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, MemoryError | exceptions.OutOfMemoryError) or "out of memory" in str(
        cause
    ):
        return CandidateFailure("out_of_memory", _first_line(cause))
    if isinstance(error, exceptions.RayTaskError):
        return CandidateFailure("crashed", f"{type(cause).__name__}: {_first_line(cause)}")
    return CandidateFailure("worker_died", _first_line(error))


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [""])[0]


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this host, for the time of a `with` block.

    Args:
        address: Of a running cluster (`auto` finds the one on this host); `None` starts one.

    Raises:
        ConfigError: There is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        fix = f"start one with `ray start --head` ({_first_line(error)})"
        raise ConfigError("ray.address", address, "the address of a running cluster", fix) from error
    try:
        yield
    finally:
        ray.shutdown()


def _room(cpus: int, gpus: float, wanted: int | None) -> int:
    """Return how many workers run at a time."""
    resources = ray.cluster_resources()
    room = int(resources.get("CPU", 0) // cpus)
    if gpus:
        room = min(room, int(resources.get("GPU", 0) / gpus))
    if room < 1:
        got = f"{cpus} cores and {gpus:g} GPUs"
        has = f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs"
        raise ConfigError(
            "evaluation",
            got,
            f"a worker that fits into the cluster's {has}",
            "lower evaluation.threads_per_worker or evaluation.gpus_per_worker",
        )
    return min(room, wanted) if wanted else room
