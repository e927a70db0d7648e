"""Workers on a simulated clock, whose candidates take as long as a test says."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from additive import loss

from nas.core.trial import Candidate, Evaluation, Evaluator, Outcome


def uneven_s(candidate: Candidate) -> float:
    """Return seconds that vary by a factor of 30, and not with the number of the candidate."""
    return float(np.exp(np.random.default_rng(candidate.seed).uniform(0, np.log(30))))


def noisy_loss(candidate: Candidate) -> Mapping[str, float]:
    noise = np.random.default_rng(candidate.seed).normal(scale=0.01)
    return {"loss": loss(candidate.genotype) + noise}


class SimulatedEvaluator(Evaluator):
    """Evaluates when it is asked what has completed; its clock jumps from end to end.

    A candidate that is cut has as much of its training as of its seconds.

    Attributes:
        busy_s: Seconds that candidates have occupied workers.
        evaluated: Numbers of the candidates that have ended, in this order.
    """

    def __init__(
        self,
        workers: int,
        seconds: Callable[[Candidate], float] = uneven_s,
        metrics: Callable[[Candidate], Mapping[str, float]] = noisy_loss,
    ) -> None:
        self.busy_s = 0.0
        self.evaluated: list[int] = []
        self._workers = workers
        self._seconds = seconds
        self._metrics = metrics
        self._now_s = 1000.0
        self._queued: list[Candidate] = []
        self._running: list[tuple[float, int, Candidate]] = []
        self._end_s = math.inf

    @property
    def workers(self) -> int:
        return self._workers

    def clock(self) -> float:
        return self._now_s

    def submit(self, candidates: Sequence[Candidate]) -> None:
        self._queued.extend(candidates)
        self._fill()

    def end_at(self, clock_s: float) -> None:
        self._end_s = clock_s

    def completed(self) -> list[Evaluation]:
        self._fill()
        if not self._running:
            self._queued.clear()
            return []
        self._now_s = self._running[0][0]
        ended = []
        while self._running and self._running[0][0] == self._now_s:
            ended.append(heapq.heappop(self._running)[2])
        self._fill()
        self.evaluated += [candidate.number for candidate in ended]
        return [self._evaluation(candidate) for candidate in ended]

    def close(self) -> None:
        self._queued.clear()
        self._running.clear()

    def _fill(self) -> None:
        free = self._workers - len(self._running)
        while self._queued and free and self._now_s < self._end_s:
            candidate, free = self._queued.pop(0), free - 1
            left_s = self._end_s - self._now_s
            end_s = self._now_s + min(self._seconds(candidate), left_s)
            if left_s < self._seconds(candidate):
                candidate = replace(candidate, cut_after_s=left_s)
            heapq.heappush(self._running, (end_s, candidate.number, candidate))

    def _evaluation(self, candidate: Candidate) -> Evaluation:
        seconds, cut_at = self._seconds(candidate), None
        if candidate.cut_after_s is not None:
            cut_at = candidate.fidelity * candidate.cut_after_s / seconds
            seconds = candidate.cut_after_s
        self.busy_s += seconds
        outcome = Outcome(metrics=self._metrics(candidate), cut_at=cut_at)
        return Evaluation(candidate=candidate, seconds=seconds, outcome=outcome)
