"""The cores that a process may use, and work that keeps to one of them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

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


def _quota(cgroups: Path, membership: Path) -> float:
    """Return the smallest CPU quota of a process's control groups in cores, infinite for none.

    Args:
        cgroups: Where control groups are mounted, of version 1 one folder for each controller.
        membership: Lists the process's groups as `id:controllers:path`, of version 2 without
            controllers; cgroups(7).
    """
    quota = math.inf
    for line in _read(membership).splitlines():
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
    version_1 = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    words = _read(group / "cpu.max").split() or [text.strip() for text in version_1]
    try:
        quota_us, period_us = (int(word) for word in words)
    except ValueError:  # "max", or no such group
        return math.inf
    return quota_us / period_us if quota_us > 0 and period_us > 0 else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
