"""All runs of a comparison, on several processes of one thread each."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from nas.benchmark import contenders
from nas.benchmark.contenders import Contender
from nas.benchmark.record import Entry, Key, Record
from nas.benchmark.run import Run, run
from nas.benchmark.task import Task
from nas.core.files import json_values


@dataclass(frozen=True)
class Campaign:
    """Which runs a comparison consists of.

    Attributes:
        contenders: Who is compared.
        tasks: On what.
        seeds: With which seeds; a slow contender gets the first of them.
        evaluations: Of a run; a slow contender makes fewer.
    """

    contenders: Sequence[Contender]
    tasks: Sequence[Task]
    seeds: Sequence[int]
    evaluations: int

    def entries(self, record: Record) -> dict[Key, Entry]:
        """Return those runs that are recorded, made with the settings that the contenders have."""
        recorded = record.entries()
        return {
            # The keys here share their tasks, which know the table's front once computed.
            key: dataclasses.replace(recorded[key], key=key)
            for key, contender in self._keys()
            if key in recorded
            and recorded[key].settings == json_values(contender.settings)
            and recorded[key].evaluations >= self._evaluations(contender)
        }

    def finish(self, record: Record, jobs: int, on_run: Callable[[Entry, int], None]) -> None:
        """Make all runs that are not recorded yet.

        Args:
            record: Where runs are kept.
            jobs: Processes.
            on_run: Called with every run that ended, and how many are still to be made.
        """
        known = self.entries(record)
        missing = [
            (key, contender)
            for key, contender in self._keys()
            if key not in known and not contender.missing
        ]
        if not missing:
            return
        # A forked process would inherit the threads of torch half alive.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=_use_one_thread) as pool:
            futures = {
                pool.submit(
                    _make,
                    key.contender,
                    key.task.dataset,
                    key.task.devices,
                    key.seed,
                    self._evaluations(contender),
                ): (key, contender)
                for key, contender in missing
            }
            try:
                for done, future in enumerate(as_completed(futures), 1):
                    entry = self._entry(*futures[future], future.result())
                    record.add(entry)
                    on_run(entry, len(futures) - done)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _entry(self, key: Key, contender: Contender, made: Run) -> Entry:
        settings, evaluations = json_values(contender.settings), self._evaluations(contender)
        return Entry(key, settings, contender.versions, evaluations, made)

    def _keys(self) -> Iterator[tuple[Key, Contender]]:
        """Yield every run: seed after seed, so that a part of them compares already."""
        for place, seed in enumerate(self.seeds):
            for task in self.tasks:
                for contender in self.contenders:
                    most = contender.limits.seeds
                    if most is None or place < most:
                        yield Key(contender.name, task, seed), contender

    def _evaluations(self, contender: Contender) -> int:
        return min(self.evaluations, contender.limits.evaluations or self.evaluations)


def _use_one_thread() -> None:
    import threadpoolctl
    import torch

    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)


def _make(
    contender: str, dataset: str, devices: tuple[str, ...], seed: int, evaluations: int
) -> Run:
    """Make one run, in a process of the pool."""
    return run(contenders.get(contender), Task(dataset, devices), seed, evaluations)
