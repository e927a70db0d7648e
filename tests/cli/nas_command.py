"""The `nas` command as a user starts it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from nas.results.study import StudyResults

COMMAND = Path(sys.executable).with_name("nas")

# Everything is real, but small: shallow networks, few measurements, an epoch.
SMALL = (
    "experiment=quickstart",
    "name=small",
    "search_space.max_depth=1",
    "search_space.resolutions=[8]",
    "search_space.widths=[0.5,1.0]",
    "device.min_seconds=0",
    "device.min_rounds=36",
    "device.relative_ci=0.5",
    "latency_predictor.samples=4",
    "search.evaluations=6",
    "search.lookahead=2",
    "search.adaptive_measurement.measurements=0",
    "search.algorithm.initial=2",
    "search.reference_point={error: 95}",
    "evaluation.recipe.epochs=1",
    "finalise.recipe.epochs=1",
    "finalise.limit=2",
)


@dataclass
class Ended:
    """A command that ran in this process."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Nas:
    """Starts the command in a folder."""

    folder: Path

    def __call__(
        self, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=environment(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start the command as the leader of a process group; none of it outlives the block."""
        with subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=environment(None),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def environment(changes: dict[str, str] | None) -> dict[str, str]:
    """Return the environment of a command, without what its user's own would change."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "PG"))}
    return {**plain, "COLUMNS": "80", **(changes or {})}


def wait_until(condition: Callable[[], bool], seconds: float = 200) -> None:
    """Wait for a condition; fails after `seconds`, which no machine should need."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.1)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait until none of the processes runs."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def number_of_trials(folder: Path) -> int:
    """Return how many trials a running study has recorded, at little cost to it."""
    ledger = folder / "ledger.db"
    if not ledger.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as reader:
        try:
            [(count,)] = reader.execute("select count(*) from trials").fetchall()
        except sqlite3.OperationalError:  # not made up to its end yet
            return 0
    return int(count)


@dataclass
class Finished:
    """A study that ran to its end, for reading only."""

    folder: Path
    printed: str

    @property
    def study(self) -> StudyResults:
        return StudyResults(self.folder)
