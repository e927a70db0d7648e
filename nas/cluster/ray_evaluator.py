"""Candidates on Ray workers."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import exceptions

from nas.core.errors import CandidateFailure, ConfigError, HwnasError, first_line
from nas.core.host import NOTICE_S, measured_by, training_step
from nas.core.trial import Candidate, Evaluation, Evaluator, Job

KILL_AFTER_S = 60.0
"""Seconds beyond its time limit after which a worker that does not stop by itself is killed."""

ATTEMPTS = 2
"""How often a candidate is tried if its worker dies. Its node may have been lost, or the operating
system may have killed the worker for its memory."""

LATE_S = 5.0
"""Seconds beyond the end after which what waits for a place in the cluster is dropped."""

_logger = logging.getLogger(__name__)


@dataclass
class _Running:
    """A candidate that Ray has been given; `started` is on this process's monotonic clock."""

    candidate: Candidate
    attempt: int = 1
    spent_s: float = 0.0  # in the attempt before
    started: float | None = None

    def seconds(self) -> float:
        """Return how long the candidate has occupied a worker, in this attempt."""
        return 0.0 if self.started is None else time.monotonic() - self.started


def check_sendable(value: object) -> None:
    """Check that a value can be sent to workers, as a part of a job.

    Raises:
        Exception: It cannot; of a kind that the value decides, as its own code may run.
    """
    ray.cloudpickle.dumps(value)  # type: ignore[no-untyped-call]


class RayEvaluator(Evaluator):
    """Runs one job per candidate as a Ray task.

    A task keeps the processor cores that it was given, so as many run at a time as the cluster
    has room for. A candidate whose worker dies is tried once more, since nobody can tell whether
    it took the worker down itself; one that fails by itself is not. A task reports that it has
    begun and then its result, so that waiting for a place in a cluster that others use as well
    does not count towards the time limit.

    Hosts have clocks of their own, so a candidate is told how many seconds are left until the end.
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
        self._most, self._share = workers, (cpus_per_worker, gpus_per_worker)
        self._workers = self._limited(_room(*self._share))
        if not self._workers:
            raise _no_room(*self._share)
        self._time_limit_s = time_limit_s
        self._kill_at_s = time_limit_s + kill_after_s
        self._end_s = math.inf
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

    def end_at(self, clock_s: float) -> None:
        self._end_s = clock_s

    def completed(self) -> list[Evaluation]:
        evaluations: list[Evaluation] = []
        self._drop_late()
        if not self._running:  # the end may have been put off
            self._fill()
        while self._running and not evaluations:
            tasks = list(self._running)
            ray.wait(tasks, num_returns=1, timeout=self._patience_s())
            reported, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            for task in reported:
                evaluations += self._receive(task)
            evaluations += self._kill_overdue()
            self._drop_late()
            if not reported and (process := measured_by()):
                _logger.warning("trainings on this host wait for a measurement by %s", process)
            self._fill()
        return evaluations

    def close(self) -> None:
        self._queued.clear()
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()

    def _limited(self, room: int) -> int:
        return room if self._most is None else min(room, self._most)

    def _fill(self) -> None:
        if self._queued:
            # Nodes may have come. On those that are gone, Ray waits for a place.
            self._workers = max(self._workers, self._limited(_room(*self._share)))
        while self._queued and len(self._running) < self._workers and self._left_s() > 0:
            self._begin(_Running(self._queued.popleft()))

    def _begin(self, running: _Running) -> None:
        candidate, left_s = running.candidate, self._left_s()
        if left_s < math.inf:
            candidate = replace(candidate, cut_after_s=left_s)
        task = self._task.remote([self._job], candidate, self._time_limit_s)
        self._running[task] = running

    def _left_s(self) -> float:
        return max(self._end_s - time.monotonic(), 0.0)

    def _patience_s(self) -> float:
        """Return the seconds until a worker may have to be killed, or a candidate be dropped."""
        late_s = self._end_s + LATE_S - time.monotonic()
        waits = (
            late_s if running.started is None else self._kill_at_s - running.seconds()
            for running in self._running.values()
        )
        return max(min(*waits, NOTICE_S), 0.0)

    def _drop_late(self) -> None:
        """Give up what has not begun though time is up."""
        late_s = time.monotonic() - self._end_s
        if late_s < 0:
            return
        self._queued.clear()
        for task, running in list(self._running.items()):
            if running.started is None and late_s >= LATE_S:
                ray.cancel(task, force=True)
                del self._running[task]

    def _receive(self, task: Any) -> list[Evaluation]:
        """Take the next report of a task: first that it has begun, then what came of it.

        Raises:
            HwnasError: A worker gave up for a reason that is not the candidate's.
        """
        running = self._running[task]
        try:
            ended: dict[str, Any] | None = ray.get(next(task))
        except exceptions.RayTaskError as error:
            # Not the candidate but its surroundings are wrong.
            if isinstance(error.cause, HwnasError):
                raise HwnasError(str(error.cause)) from error
            ended = {"seconds": running.seconds(), "failure": str(_failure(error.cause))}
        except exceptions.RayError as error:
            # Of the two, the one that is noticed first.
            ended_here = exceptions.LocalRayletDiedError | exceptions.NodeDiedError
            if isinstance(error, ended_here) and len(_nodes()) == 1:
                fix = "what was finished is kept, run the same command again to go on"
                raise HwnasError(f"Ray's process on this host (raylet) has ended; {fix}") from error
            if running.attempt < ATTEMPTS:
                del self._running[task]
                line = "%s: its worker died (%s); it is tried once more"
                _logger.warning(line, running.candidate.arch_id, _failure(error).detail)
                self._begin(_Running(running.candidate, running.attempt + 1, running.seconds()))
                return []
            ended = {"seconds": running.seconds(), "failure": str(_failure(error))}
        if ended is None:
            running.started = time.monotonic()
            return []
        del self._running[task]
        ended["seconds"] += running.spent_s
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
                    Evaluation(
                        candidate=running.candidate,
                        seconds=running.spent_s + seconds,
                        failure=failure,
                    )
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


def _failure(cause: BaseException) -> CandidateFailure:
    """Return why a task did not return: what the job raised, or how Ray says its worker died."""
    no_memory = ("out of memory", "can't allocate memory")  # of a GPU, of torch on the host
    if isinstance(cause, MemoryError | exceptions.OutOfMemoryError) or any(
        sign in str(cause) for sign in no_memory
    ):
        return CandidateFailure("out_of_memory", first_line(cause))
    if isinstance(cause, exceptions.RayError):
        # What Ray says goes on with the logs to look at, which end with the cluster.
        return CandidateFailure("worker_died", first_line(cause).partition(". ")[0])
    return CandidateFailure("crashed", f"{type(cause).__name__}: {first_line(cause)}")


def _room(cpus: int, gpus: float) -> int:
    """Return how many workers run at a time; each must fit on one node of the cluster."""
    room = 0
    for node in _resources():
        fitting = node.get("CPU", 0) // cpus
        if gpus:
            # Several workers may share a GPU, but a share does not span two of them.
            cards = node.get("GPU", 0)
            fitting = min(fitting, cards // gpus if gpus >= 1 else cards * int(1 / gpus))
        room += int(fitting)
    return room


def _no_room(cpus: int, gpus: float) -> ConfigError:
    most = {k: max((node.get(k, 0) for node in _resources()), default=0) for k in ("CPU", "GPU")}
    return ConfigError(
        "evaluation",
        f"{cpus} cores and {gpus:g} GPUs",
        f"a worker that fits on a node of {most['CPU']:g} cores and {most['GPU']:g} GPUs",
        "lower evaluation.threads_per_worker or evaluation.gpus_per_worker",
    )


def _resources() -> list[dict[str, float]]:
    """Return what each living node of the cluster has."""
    return [node["Resources"] for node in _nodes() if node["Alive"]]


def _nodes() -> list[dict[str, Any]]:
    """Return all nodes that the cluster has had."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes
