"""One run of a contender: which rows of the table it evaluated, in which order, how slowly."""

from __future__ import annotations

import time
from dataclasses import dataclass

from nas.benchmark.contenders import Contender
from nas.benchmark.task import Task

MOST_REPEATS = 500
"""Proposals in a row that were known already, after which a run is stuck and ends."""

LAST = 20
"""Evaluations at the end of a run over which the overhead there is averaged."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a contender did on a task.

    Attributes:
        rows: Of the table, all different, in the order in which they were first proposed.
        asked: How often it was asked: proposing what is known already costs nothing.
        seconds: That asking and telling took together, per distinct evaluation.
        seconds_at_end: The same for the last `LAST` of them.
    """

    rows: tuple[int, ...]
    asked: int
    seconds: float
    seconds_at_end: float


def run(contender: Contender, task: Task, seed: int, evaluations: int) -> Run:
    """Let a contender search until it has evaluated so many different architectures.

    Args:
        contender: Whom.
        task: What is searched.
        seed: Of the run.
        evaluations: Distinct ones at which the run ends; it may end earlier, where nothing new is
            proposed any more.
    """
    optimiser = contender.begin(task, seed)
    spent: dict[int, float] = {}
    asked = repeats = 0
    pending = 0.0
    while len(spent) < evaluations and repeats < MOST_REPEATS:
        start = time.perf_counter()
        genotype = optimiser.ask()
        pending += time.perf_counter() - start
        if genotype is None:
            break
        asked += 1
        row = int(task.table.table.rows([genotype])[0])
        repeats = repeats + 1 if row in spent else 0
        values = tuple(task.points[row].tolist())
        start = time.perf_counter()
        optimiser.tell(genotype, values)
        pending += time.perf_counter() - start
        if row not in spent:
            spent[row], pending = pending, 0.0
    seconds = list(spent.values())
    return Run(
        rows=tuple(spent),
        asked=asked,
        seconds=sum(seconds) / max(len(seconds), 1),
        seconds_at_end=sum(seconds[-LAST:]) / max(len(seconds[-LAST:]), 1),
    )
