"""The runs of a comparison: made on several processes, each kept as a line of its contender's file.

A line is written when its run has ended, so an interrupted benchmark goes on where it was, and a
new contender is compared with runs of long ago.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contenders
from _shared.table_task import TableTask
from contenders import Contender

from nas.core.errors import LedgerError
from nas.core.files import json_values

MOST_REPEATS = 500
"""Proposals in a row that were known already, after which a run is stuck and ends."""

LAST = 20
"""Evaluations at the end of a run over which the overhead there is averaged."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
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


def search(contender: Contender, task: TableTask, seed: int, evaluations: int) -> BenchmarkRun:
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
        row = task.row(genotype)
        repeats = repeats + 1 if row in spent else 0
        values = tuple(task.points([row])[0].tolist())
        start = time.perf_counter()
        optimiser.tell(genotype, values)
        pending += time.perf_counter() - start
        if row not in spent:
            spent[row], pending = pending, 0.0
    seconds = list(spent.values())
    return BenchmarkRun(
        rows=tuple(spent),
        asked=asked,
        seconds=sum(seconds) / max(len(seconds), 1),
        seconds_at_end=sum(seconds[-LAST:]) / max(len(seconds[-LAST:]), 1),
    )


@dataclass(frozen=True)
class RunKey:
    """Which run it is.

    Attributes:
        contender: Its name.
        task: What was searched.
        seed: Of the run.
    """

    contender: str
    task: TableTask
    seed: int


@dataclass(frozen=True)
class RecordedRun:
    """A run that has ended.

    Attributes:
        key: Which run.
        settings: Of the contender.
        versions: Of the packages that it needs, as they were installed.
        evaluations: How many it was to make.
        run: What came of it.
    """

    key: RunKey
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    evaluations: int
    run: BenchmarkRun


class RunRecord:
    """All runs in a folder."""

    def __init__(self, folder: Path) -> None:
        """Keep runs in `folder`, which is made when the first one is added."""
        self._folder = folder

    def entries(self) -> dict[RunKey, RecordedRun]:
        """Return the last entry of every run.

        Raises:
            LedgerError: A line cannot be read.
        """
        found = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            _drop_unfinished(path)
            lines = path.read_text("utf-8").splitlines()
            for number, line in enumerate(lines, 1):
                try:
                    entry = _entry(path.stem, json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    fix = "delete the line; the run is made again"
                    raise LedgerError(
                        f"{path}, line {number}: not a run ({error}); {fix}"
                    ) from error
                found[entry.key] = entry
        return found

    def add(self, entry: RecordedRun) -> None:
        """Append a run to the file of its contender."""
        self._folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(
            json_values(
                {
                    # As the first table's runs had them: its data sets, costs of its devices.
                    "dataset": entry.key.task.setting,
                    "devices": entry.key.task.costs,
                    "seed": entry.key.seed,
                    "settings": entry.settings,
                    "versions": entry.versions,
                    "evaluations": entry.evaluations,
                    **dataclasses.asdict(entry.run),
                }
            )
        )
        with (self._folder / f"{entry.key.contender}.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _drop_unfinished(path: Path) -> None:
    """Cut off a line that an interruption left without its end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        path.write_bytes(content[:whole])


def _entry(contender: str, line: Mapping[str, Any]) -> RecordedRun:
    fields = {field.name: line[field.name] for field in dataclasses.fields(BenchmarkRun)}
    task = TableTask(line["dataset"], tuple(line["devices"]))
    run = BenchmarkRun(**{**fields, "rows": tuple(line["rows"])})
    key = RunKey(contender, task, line["seed"])
    return RecordedRun(key, line["settings"], line["versions"], line["evaluations"], run)


@dataclass(frozen=True)
class Campaign:
    """Which runs a comparison consists of.

    Attributes:
        contenders: Who is compared.
        tasks: On what.
        seeds: With which seeds; a slow contender gets the first of them.
        evaluations: Of a run; a slow contender makes fewer, and no task more than its setting has.
    """

    contenders: Sequence[Contender]
    tasks: Sequence[TableTask]
    seeds: Sequence[int]
    evaluations: int

    def entries(self, record: RunRecord) -> dict[RunKey, RecordedRun]:
        """Return those runs that are recorded, made with the settings that the contenders have."""
        recorded = record.entries()
        return {
            # The keys here share their tasks, which know the table's front once computed.
            key: dataclasses.replace(recorded[key], key=key)
            for key, contender in self._keys()
            if key in recorded
            and recorded[key].settings == json_values(contender.settings)
            and recorded[key].evaluations >= self._evaluations(contender, key.task)
        }

    def finish(
        self, record: RunRecord, jobs: int, on_run: Callable[[RecordedRun, int], None]
    ) -> None:
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
                    key.task.setting,
                    key.task.costs,
                    key.seed,
                    self._evaluations(contender, key.task),
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

    def _entry(self, key: RunKey, contender: Contender, made: BenchmarkRun) -> RecordedRun:
        settings = json_values(contender.settings)
        evaluations = self._evaluations(contender, key.task)
        return RecordedRun(key, settings, contender.versions, evaluations, made)

    def _keys(self) -> Iterator[tuple[RunKey, Contender]]:
        """Yield every run: seed after seed, so that a part of them compares already."""
        for place, seed in enumerate(self.seeds):
            for task in self.tasks:
                for contender in self.contenders:
                    most = contender.limits.seeds
                    able = contender.constrained or not task.limited
                    if able and (most is None or place < most):
                        yield RunKey(contender.name, task, seed), contender

    def _evaluations(self, contender: Contender, task: TableTask) -> int:
        most = contender.limits.evaluations or self.evaluations
        return min(self.evaluations, most, task.most_evaluations)


def _use_one_thread() -> None:
    import threadpoolctl
    import torch

    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)


def _make(
    contender: str, setting: str, costs: tuple[str, ...], seed: int, evaluations: int
) -> BenchmarkRun:
    """Make one run, in a process of the pool."""
    return search(contenders.get(contender), TableTask(setting, costs), seed, evaluations)
