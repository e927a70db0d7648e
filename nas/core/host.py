"""The host: the cores that a process may use, and who has the host for itself.

Trainings share the host, a measurement has it alone. Two lock files serve all processes of this
host and user, whichever study, cluster or job they belong to; so they lie in `/tmp` and not in a
temporary folder that a job may have of its own. Trainings hold `room` shared, for one step at a
time; a measurement holds it exclusively. Whoever wants `room` first passes `door`, which a waiting
measurement keeps shut, so that a stream of trainings cannot starve it. The kernel releases the
locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock; there the caller must keep the host quiet
    fcntl = None  # type: ignore[assignment]

LEASE_FOLDER_VARIABLE = "HWNAS_LEASE"
"""Environment variable with another folder for the lock files."""

_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    These are the processors that its affinity allows (`taskset`), limited by the CPU quota of its
    control group and of every group above it (`docker run --cpus`, `CPUQuota=` of systemd), rounded
    down. Where the system knows neither, all logical cores.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(math.floor(min(cores, _quota(_CGROUPS, _MEMBERSHIP))), 1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let numerical libraries use one thread for the time of a `with` block, or of a call.

    Small matrices take longer on several threads, which also compete with the workers, and sums
    that are divided among threads depend on how many there are. Libraries that are loaded within
    the block are not limited.
    """
    import threadpoolctl

    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    # PyTorch first: limiting OpenMP changes what PyTorch says of itself.
    if torch:
        torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        if torch:
            torch.set_num_threads(threads)


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


def _quota(cgroups: Path, membership: Path) -> float:
    """Return the smallest CPU quota of a process's control groups in cores, infinite for none.

    Args:
        cgroups: Where control groups are mounted, of version 1 one folder for each controller.
        membership: Lists the process's groups as `id:controllers:path`, of version 2 without
            controllers; cgroups(7).
    """
    quota = math.inf
    for line in _text_of(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container, the path may be that of the host, of which only the root is mounted.
        group = Path(path.lstrip("/"))
        for mount in {cgroups / controllers, cgroups / "cpu"} if controllers else {cgroups}:
            for folder in (group, *group.parents):
                quota = min(quota, _group_quota(mount / folder))
    return quota


def _group_quota(group: Path) -> float:
    """Return the CPU quota of one control group in cores, infinite for none."""
    version_1 = _text_of(group / "cpu.cfs_quota_us"), _text_of(group / "cpu.cfs_period_us")
    words = _text_of(group / "cpu.max").split() or [text.strip() for text in version_1]
    try:
        quota_us, period_us = (int(word) for word in words)
    except ValueError:  # "max", or no such group
        return math.inf
    return quota_us / period_us if quota_us > 0 and period_us > 0 else math.inf


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def _locked(name: str, *, exclusive: bool) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with (_lease_folder() / name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def _lease_folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(os.environ.get(LEASE_FOLDER_VARIABLE) or f"/tmp/hwnas-lease-{user}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
