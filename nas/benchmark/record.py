"""The durable record of runs: one file a contender, one line a run.

A line is written when its run has ended, so an interrupted benchmark goes on where it was, and a
new contender is compared with runs of long ago.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.benchmark.run import Run
from nas.benchmark.task import Task
from nas.core.errors import LedgerError
from nas.core.files import json_values


@dataclass(frozen=True)
class Key:
    """Which run it is.

    Attributes:
        contender: Its name.
        task: What was searched.
        seed: Of the run.
    """

    contender: str
    task: Task
    seed: int


@dataclass(frozen=True)
class Entry:
    """A run that has ended.

    Attributes:
        key: Which run.
        settings: Of the contender.
        versions: Of the packages that it needs, as they were installed.
        evaluations: How many it was to make.
        run: What came of it.
    """

    key: Key
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    evaluations: int
    run: Run


class Record:
    """All runs in a folder."""

    def __init__(self, folder: Path) -> None:
        """Keep runs in `folder`, which is made when the first one is added."""
        self._folder = folder

    def entries(self) -> dict[Key, Entry]:
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

    def add(self, entry: Entry) -> None:
        """Append a run to the file of its contender."""
        self._folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(
            json_values(
                {
                    "dataset": entry.key.task.dataset,
                    "devices": entry.key.task.devices,
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


def _entry(contender: str, line: Mapping[str, Any]) -> Entry:
    fields = {field.name: line[field.name] for field in dataclasses.fields(Run)}
    task = Task(line["dataset"], tuple(line["devices"]))
    run = Run(**{**fields, "rows": tuple(line["rows"])})
    key = Key(contender, task, line["seed"])
    return Entry(key, line["settings"], line["versions"], line["evaluations"], run)
