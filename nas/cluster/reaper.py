"""Clears up after a cluster of Ray on this host, however the process that started it ends.

`python -m nas.cluster.reaper FOLDER` waits until its standard input ends, which it does with the
process at the other end. It then ends the processes of Ray that have files of `FOLDER` open, and
removes the folder: Ray itself leaves its agents alive for a minute and its folder for ever. Where
the other process has not said `ORDERLY` before, it was killed, or Ray has ended it because one of
its own processes was killed; then this process says so in its place.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ORDERLY = "orderly"
"""Written by a process that ends in order."""

_KILLED = (
    "nas: the process was killed, or a process of Ray (raylet, gcs_server) that it needs; "
    "what was finished is kept, run the same command again to go on\n"
)

_RAY = re.compile("^ray::|/ray/(core|dashboard|_private)/")
"""Matches the command lines of Ray's processes."""

GRACE_S = 2.0
"""Seconds in which Ray's processes end by themselves."""


def clear(folder: Path) -> None:
    """End the processes that have files of a folder open, and remove it."""
    deadline = time.monotonic() + GRACE_S
    while (users := list(_users(folder))) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in users:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(users, timeout=GRACE_S)
    shutil.rmtree(folder, ignore_errors=True)


def _users(folder: Path) -> Iterator[psutil.Process]:
    """Yield processes of Ray that have files of a folder open."""
    within = f"{folder}/"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            command = " ".join(process.cmdline())
            if _RAY.search(command) and any(
                file.path.startswith(within) for file in process.open_files()
            ):
                yield process


if __name__ == "__main__":
    if sys.stdin.read() != ORDERLY:
        sys.stderr.write(_KILLED)
    clear(Path(sys.argv[1]))
