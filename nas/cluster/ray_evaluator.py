"""Candidates on Ray workers."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions

from nas.core.errors import CandidateFailure, ConfigError, first_line
from nas.core.host import training_step
from nas.core.trial import Candidate, Evaluation, Evaluator, Job

KILL_AFTER_S = 60.0
"""Seconds beyond its time limit after which a worker that does not stop by itself is killed."""


@dataclass
class _Running:
    """A candidate that Ray has been given; `started` is on this process's monotonic clock."""

    candidate: Candidate
    started: float | None = None

    def seconds(self) -> float:
        """Return how long the candidate has occupied a worker."""
        return 0.0 if self.started is None else time.monotonic() - self.started


class RayEvaluator(Evaluator):
    """Runs one job per candidate as a Ray task.

    A task keeps the processor cores that it was given, so as many run at a time as the cluster
    has room for. Nothing is retried: a candidate that takes its worker down would do so again.
    A task reports that it has begun and then its result, so that waiting for a place in a cluster
    that others use as well does not count towards the time limit.
    """

    def __init__(
        self,
        job: Job,
        *,
        workers: int | None,
        cpus_per_worker: int,
        gpus_per_worker: float,
        time_limit_s: float,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        """Ship the job to the cluster that this process is connected to, once.

        Args:
            job: What to do with a candidate.
            workers: Most candidates at a time; `None` for as many as there is room for.
            cpus_per_worker: Processor cores of a worker.
            gpus_per_worker: GPUs of a worker.
            time_limit_s: Seconds after which a candidate fails.
            kill_after_s: Seconds beyond that after which its worker is killed.

        Raises:
            ConfigError: There is not enough room in the cluster for one worker.
        """
        room = _room(cpus_per_worker, gpus_per_worker)
        self._workers = room if workers is None else min(room, workers)
        self._time_limit_s = time_limit_s
        self._kill_at_s = time_limit_s + kill_after_s
        self._job = ray.put(job)
        self._task = ray.remote(num_cpus=cpus_per_worker, num_gpus=gpus_per_worker, max_retries=0)(
            _run
        )
        self._queued: deque[Candidate] = deque()
        self._running: dict[Any, _Running] = {}

    @property
    def workers(self) -> int:
        return self._workers

    def submit(self, candidates: Sequence[Candidate]) -> None:
        self._queued.extend(candidates)
        self._fill()

    def completed(self) -> list[Evaluation]:
        evaluations: list[Evaluation] = []
        while self._running and not evaluations:
            tasks = list(self._running)
            ray.wait(tasks, num_returns=1, timeout=self._until_next_kill())
            reported, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            for task in reported:
                evaluations += self._receive(task)
            evaluations += self._kill_overdue()
            self._fill()
        return evaluations

    def close(self) -> None:
        self._queued.clear()
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()

    def _fill(self) -> None:
        while self._queued and len(self._running) < self._workers:
            candidate = self._queued.popleft()
            task = self._task.remote([self._job], candidate, self._time_limit_s)
            self._running[task] = _Running(candidate)

    def _until_next_kill(self) -> float | None:
        """Return the seconds until a worker may have to be killed; `None` if none has begun."""
        seconds = [r.seconds() for r in self._running.values() if r.started is not None]
        if not seconds or self._kill_at_s == math.inf:
            return None
        return max(self._kill_at_s - max(seconds), 0)

    def _receive(self, task: Any) -> list[Evaluation]:
        """Take the next report of a task: first that it has begun, then what came of it."""
        running = self._running[task]
        try:
            ended: dict[str, Any] | None = ray.get(next(task))
        except exceptions.RayError as error:
            ended = {"seconds": running.seconds(), "failure": str(_failure(error))}
        if ended is None:
            running.started = time.monotonic()
            return []
        del self._running[task]
        return [Evaluation(candidate=running.candidate, **ended)]

    def _kill_overdue(self) -> list[Evaluation]:
        evaluations = []
        for task, running in list(self._running.items()):
            seconds = running.seconds()
            if seconds >= self._kill_at_s:
                ray.cancel(task, force=True)
                del self._running[task]
                detail = f"killed after {seconds:.0f} s, the limit is {self._time_limit_s:g}"
                failure = str(CandidateFailure("timeout", detail))
                evaluations.append(
                    Evaluation(candidate=running.candidate, seconds=seconds, failure=failure)
                )
        return evaluations


def _run(
    jobs: list[Any], candidate: Candidate, time_limit_s: float
) -> Iterator[dict[str, Any] | None]:
    """Run the job on a worker; yield `None` at its begin, then fields of an `Evaluation`.

    A failure that the job reports itself comes back as text.
    The only entry of `jobs` is a reference, which Ray does not resolve within a list: loading
    PyTorch and the images takes seconds, in which nothing must be measured on this host.
    """
    with training_step():
        job: Job = ray.get(jobs[0])
    yield None
    if not ray.get_gpu_ids():
        # Ray leaves the GPUs of the host visible to a worker that was given none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    started = time.monotonic()
    ended: dict[str, Any] = {}
    try:
        ended["outcome"] = job(candidate, started + time_limit_s)
    except CandidateFailure as error:
        ended["failure"] = str(error)
    yield {**ended, "seconds": time.monotonic() - started}


def _failure(error: exceptions.RayError) -> CandidateFailure:
    """Return why a task did not return: the job raised, or its worker died."""
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    no_memory = ("out of memory", "can't allocate memory")  # of a GPU, of torch on the host
    if isinstance(cause, MemoryError | exceptions.OutOfMemoryError) or any(
        sign in str(cause) for sign in no_memory
    ):
        return CandidateFailure("out_of_memory", first_line(cause))
    if isinstance(error, exceptions.RayTaskError):
        return CandidateFailure("crashed", f"{type(cause).__name__}: {first_line(cause)}")
    return CandidateFailure("worker_died", first_line(error))


def _room(cpus: int, gpus: float) -> int:
    """Return how many workers run at a time; each must fit on one node of the cluster."""
    listed = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in listed if node["Alive"]]
    room = 0
    for node in nodes:
        fitting = node.get("CPU", 0) // cpus
        if gpus:
            # Several workers may share a GPU, but a share does not span two of them.
            cards = node.get("GPU", 0)
            fitting = min(fitting, cards // gpus if gpus >= 1 else cards * int(1 / gpus))
        room += int(fitting)
    if room < 1:
        most = {kind: max(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
        raise ConfigError(
            "evaluation",
            f"{cpus} cores and {gpus:g} GPUs",
            f"a worker that fits on a node of {most['CPU']:g} cores and {most['GPU']:g} GPUs",
            "lower evaluation.threads_per_worker or evaluation.gpus_per_worker",
        )
    return room
