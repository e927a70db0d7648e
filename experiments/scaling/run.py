"""What one search loop can feed: simulated workers, the real loop, the real ledger.

Run `python experiments/scaling/run.py`. It writes `results.json` beside this file. Workers train
in simulated time, which also passes while the loop proposes, records and tells: a worker that waits
for the loop is idle. Every search runs in a process of its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import search_spaces
from nas import objectives, tables
from nas.core.files import write_json_atomically
from nas.core.objective import Facts
from nas.core.trial import Candidate, Evaluation, Evaluator, Outcome, Trial
from nas.devices.measuring.environment import describe_host, load_average
from nas.evaluation.checkpoints import CheckpointFolder, ContinuingEvaluator
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.search import algorithms
from nas.search.feasibility import feasibility_report
from nas.search.loop import SearchLoop
from nas.search.problem import SearchProblem
from nas.search.proposer import WarmStart
from nas.search.schedule import Asynchronous
from nas.search.stopping import Stopping
from nas.study.record import described, versions

SEARCHES = (
    # workers, trials, mean seconds of a training, algorithm
    (10, 500, 60.0, "random_search"),
    (100, 2_000, 60.0, "random_search"),
    (1_000, 20_000, 60.0, "random_search"),
    (10_000, 30_000, 60.0, "random_search"),
    (1_000, 20_000, 0.0, "random_search"),
    (1_000, 5_000, 60.0, "nsga2"),
)
MEMORY_AT = (1_000, 20_000)
"""Trials after which the memory of the process is read."""


class WaitingWorkers(Evaluator):
    """Simulated workers who wait while the loop's own code runs.

    Attributes:
        idle_s: Simulated seconds that workers had nothing to do before their last candidate.
        last_s: Simulated second at which the last candidate was submitted.
        real_s: Real seconds that the loop's own code took.
    """

    def __init__(self, workers: int, mean_s: float) -> None:
        """Simulate workers whose trainings take as long as published ones, scaled to a mean."""
        table = tables.get("nasbench201")
        seconds = table.seconds("cifar10", 200)
        self._seconds = (seconds * mean_s / seconds.mean()).tolist()
        self._errors = table.error("cifar10", 200).tolist()
        self._now_s = self.idle_s = self.last_s = self.real_s = 0.0
        self._free_s = [0.0] * workers
        self._ending: list[tuple[float, int, Evaluation]] = []
        self._left_s = time.perf_counter()

    @property
    def workers(self) -> int:
        return len(self._free_s)

    def submit(self, candidates: Sequence[Candidate]) -> None:
        self._pass_time()
        for candidate in candidates:
            free_s = heapq.heappop(self._free_s)
            starts_s = max(self._now_s, free_s)
            self.idle_s += starts_s - free_s
            self.last_s = starts_s
            # Which published training a candidate is given is arbitrary, and always the same.
            row = int(candidate.arch_id, 16) % len(self._seconds)
            seconds = self._seconds[row]
            outcome = Outcome(metrics={"error": self._errors[row]})
            evaluation = Evaluation(candidate=candidate, seconds=seconds, outcome=outcome)
            heapq.heappush(self._free_s, starts_s + seconds)
            heapq.heappush(self._ending, (starts_s + seconds, candidate.number, evaluation))
        self._left_s = time.perf_counter()

    def completed(self) -> list[Evaluation]:
        self._pass_time()
        evaluations: list[Evaluation] = []
        if self._ending:
            self._now_s = max(self._now_s, self._ending[0][0])
        while self._ending and self._ending[0][0] <= self._now_s:
            evaluations.append(heapq.heappop(self._ending)[2])
        self._left_s = time.perf_counter()
        return evaluations

    def clock(self) -> float:
        return self._now_s

    def close(self) -> None:
        self._ending.clear()

    def _pass_time(self) -> None:
        took_s = time.perf_counter() - self._left_s
        self.real_s += took_s
        self._now_s += took_s


def search(workers: int, trials: int, mean_s: float, algorithm: str) -> dict[str, Any]:
    """Run one search in this process."""
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    problem = SearchProblem(
        space=space,
        objectives={name: objectives.get(name) for name in ("error", "params_m")},
        constraints=(),
        limited={},
        facts=Facts(space.costs, None),
    )
    # As a study does before it searches: the blocks that most architectures share are known then.
    feasibility_report(problem, np.random.default_rng(0))
    process = psutil.Process()
    ended = 0
    memory_mb: dict[int, float] = {}

    def note(_: Trial) -> None:
        nonlocal ended
        ended += 1
        if ended in MEMORY_AT:
            memory_mb[ended] = process.memory_info().rss / 1e6

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulated = WaitingWorkers(workers, mean_s)
        url = sqlite_url(folder / "ledger.db")
        loop = SearchLoop(
            problem=problem,
            algorithm=WarmStart(algorithms.get(algorithm).start(problem, 0), problem, []),
            evaluator=ContinuingEvaluator(
                simulated,
                CheckpointFolder(folder / "checkpoints"),
                CheckpointFolder(folder / "parents"),
            ),
            ledger=Ledger.open(url, "scaling", list(problem.objectives), space.genes),
            describe=described,
            on_trial=note,
            study_seed=0,
            stopping=Stopping(trials),
            schedule=Asynchronous(workers),
        )
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        simulated._left_s = began_s
        found = loop.run()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        assert len(Ledger.load(url, "scaling").trials()) == len(found) == trials
    growth = None
    if all(at in memory_mb for at in MEMORY_AT):
        growth = 100 * (memory_mb[MEMORY_AT[1]] / memory_mb[MEMORY_AT[0]] - 1)
    return {
        "algorithm": algorithm,
        "workers": workers,
        "trials": trials,
        "mean_training_s": mean_s,
        "idle_percent": 100 * simulated.idle_s / (workers * simulated.last_s),
        "simulated_s": simulated.last_s,
        "results_per_simulated_s": trials / simulated.last_s,
        "loop_wall_s": wall_s,
        "loop_cpu_s": cpu_s,
        "trials_per_s": trials / wall_s,
        "trials_per_cpu_s": trials / cpu_s,
        "memory_mb": memory_mb,
        "memory_growth_percent": growth,
    }


def main() -> None:
    """Run every search and write `results.json`, or one of them and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=4, metavar=("WORKERS", "TRIALS", "SECONDS", "ALGORITHM"))
    one = parser.parse_args().one
    if one is not None:
        found = search(int(one[0]), int(one[1]), float(one[2]), one[3])
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    searches = []
    for given in SEARCHES:
        command = [sys.executable, __file__, "--one", *map(str, given)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        sys.stdout.write(said)
        sys.stdout.flush()
        searches.append(json.loads(said))
    record = {
        "searches": searches,
        "load": load_average(),
        "versions": versions(),
        "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
    }
    write_json_atomically(Path(__file__).with_name("results.json"), record)


if __name__ == "__main__":
    main()
