"""The host's quiet: trainings share it, a measurement has it alone.

Two lock files serve all processes of this host and user, whichever study, cluster or job they
belong to; so they lie in `/tmp` and not in a temporary folder that a job may have of its own.
Trainings hold `room` shared, for one step at a time; a measurement holds it exclusively. Whoever
wants `room` first passes `door`, which a waiting measurement keeps shut, so that a stream of
trainings cannot starve it. The kernel releases the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock; there the caller must keep the host quiet
    fcntl = None  # type: ignore[assignment]


FOLDER_VARIABLE = "HWNAS_LEASE"
"""Environment variable with another folder for the lock files."""


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(os.environ.get(FOLDER_VARIABLE) or f"/tmp/hwnas-lease-{user}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _locked(name: str, *, exclusive: bool) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with (_folder() / name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def training_step() -> Iterator[None]:
    """Hold the host for one training step; waits while a measurement is being taken."""
    with contextlib.ExitStack() as held:
        with _locked("door", exclusive=False):
            held.enter_context(_locked("room", exclusive=False))
        yield


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """Hold the host for a measurement; waits until every running training step has ended."""
    with _locked("door", exclusive=True), _locked("room", exclusive=True):
        yield
