"""The host: the cores that a process may use, and who has the host for itself.

Trainings share the host, a measurement has it alone. Two lock files serve all processes of this
host and user, whichever study, cluster or job they belong to; so they lie in `/tmp` and not in a
temporary folder that a job may have of its own. Trainings hold `room` shared, for one step at a
time; a measurement holds it exclusively. Whoever wants `room` first passes `door`, which a waiting
measurement keeps shut, so that a stream of trainings cannot starve it. The kernel releases the
locks of a process that dies. A process that is stopped or hangs keeps them: whoever waits learns
which process that is, and gives up after a time.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import nas
from nas.core.errors import ConfigError, HostBusyError, one_line

try:
    import fcntl
except ImportError:  # Windows has no flock; there the caller must keep the host quiet
    fcntl = None  # type: ignore[assignment]

LEASE_FOLDER_VARIABLE = "HWNAS_LEASE"
"""Environment variable with another folder for the lock files."""

PATIENCE_VARIABLE = "HWNAS_LEASE_SECONDS"
"""Environment variable with the seconds for which the host is waited for."""

PATIENCE_S = 1800.0
"""Default of `PATIENCE_VARIABLE`; longer than the measurements of a calibration take."""

NOTICE_S = 20.0
"""Seconds between two notices of who is waited for."""

_LOCKS = Path("/proc/locks")
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05

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
    return max(math.floor(min([cores, *map(_quota, _groups("cpu"))])), 1)


def usable_memory() -> int:
    """Return the bytes of memory that this process may use.

    This is what the system has available, limited by the process's control group and by every
    group above it (`docker run --memory`, `MemoryMax=` of systemd).
    """
    import psutil

    return _limited(psutil.virtual_memory().available)


def host_memory() -> int:
    """Return the bytes of memory that this process and others of its control group have."""
    import psutil

    return _limited(psutil.virtual_memory().total)


def child_environment() -> dict[str, str]:
    """Return the environment of a Python process that imports this package, wherever it lies."""
    paths = filter(None, [str(Path(nas.__path__[0]).parent), os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


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
    """Hold the host for one training step; waits while a measurement is being taken.

    Raises:
        HostBusyError: It was waited for too long.
    """
    with contextlib.ExitStack() as held:
        with _locked("door", exclusive=False):
            held.enter_context(_locked("room", exclusive=False))
        yield


@contextlib.contextmanager
def measuring(notice: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the host for a measurement; waits until every running training step has ended.

    Args:
        notice: Called every `NOTICE_S` seconds of waiting, with who is waited for and how long.

    Raises:
        HostBusyError: It was waited for too long.
    """
    with (
        _locked("door", exclusive=True, notice=notice),
        _locked("room", exclusive=True, notice=notice),
    ):
        yield


def measured_by() -> str | None:
    """Return which process has the host for a measurement now; `None` if none has."""
    file = _opened("room")
    try:
        return None if try_lock(file, exclusive=False) else _holders(file)
    finally:
        os.close(file)


def try_lock(file: IO[str] | int, *, exclusive: bool = True) -> bool:
    """Lock an open file or folder until it is closed; return whether nobody else has locked it.

    Where there are no file locks, nobody has.
    """
    if fcntl is None:
        return True
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _groups(controller: str) -> Iterator[Path]:
    """Return the folders of this process's control groups and of every group above them.

    `_MEMBERSHIP` lists the process's groups as `id:controllers:path`, of version 2 without
    controllers; cgroups(7).

    Args:
        controller: Of version 1, where each has groups of its own: `cpu` or `memory`.
    """
    for line in _text_of(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In a container, the path may be that of the host, of which only the root is mounted.
        group = Path(path.lstrip("/"))
        mounts = {_CGROUPS / controllers, _CGROUPS / controller} if controllers else {_CGROUPS}
        for mount in mounts:
            for folder in (group, *group.parents):
                yield mount / folder


def _limited(memory: int) -> int:
    return int(min([memory, *map(_memory_limit, _groups("memory"))]))


def _quota(group: Path) -> float:
    """Return the CPU quota of one control group in cores, infinite for none."""
    version_1 = _text_of(group / "cpu.cfs_quota_us"), _text_of(group / "cpu.cfs_period_us")
    words = _text_of(group / "cpu.max").split() or [text.strip() for text in version_1]
    try:
        quota_us, period_us = (int(word) for word in words)
    except ValueError:  # "max", or no such group
        return math.inf
    return quota_us / period_us if quota_us > 0 and period_us > 0 else math.inf


def _memory_limit(group: Path) -> float:
    """Return the memory of one control group in bytes, infinite for no limit."""
    text = _text_of(group / "memory.max") or _text_of(group / "memory.limit_in_bytes")
    try:
        return int(text)
    except ValueError:  # "max", or no such group
        return math.inf


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def _locked(
    name: str, *, exclusive: bool, notice: Callable[[str], None] | None = None
) -> Iterator[None]:
    file = _opened(name)
    try:
        if not try_lock(file, exclusive=exclusive):
            _wait(file, exclusive, notice)
        yield
    finally:
        os.close(file)


def _wait(file: int, exclusive: bool, notice: Callable[[str], None] | None) -> None:
    """Wait for the lock of a file with a time limit, which `flock` itself does not have."""
    started = noticed = time.monotonic()
    patience_s, pause_s = _patience_s(), _SHORTEST_PAUSE_S
    while not try_lock(file, exclusive=exclusive):
        now = time.monotonic()
        if now - started >= patience_s:
            fix = f"end that process, or set {PATIENCE_VARIABLE} to wait longer"
            line = f"this host: waited {now - started:.0f} s for {_holders(file)}; {fix}"
            raise HostBusyError(line)
        if notice is not None and now - noticed >= NOTICE_S:
            notice(f"waiting {now - started:.0f} s for this host, which {_holders(file)} has")
            noticed = now
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _patience_s() -> float:
    text = os.environ.get(PATIENCE_VARIABLE) or str(PATIENCE_S)
    try:
        patience_s = float(text)
    except ValueError:
        patience_s = math.nan
    if not patience_s >= 0:
        raise ConfigError(PATIENCE_VARIABLE, text, "seconds, 0 or more")
    return patience_s


def _holders(file: int) -> str:
    """Return which processes have locked a file, as far as the system says so; proc_locks(5)."""
    state = os.fstat(file)
    inode = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}:{state.st_ino}"
    held = [line.split() for line in _text_of(_LOCKS).splitlines() if "->" not in line]
    pids = [words[4] for words in held if words[1] == "FLOCK" and words[5] == inode]
    seen = [pid for pid in dict.fromkeys(pids) if pid != "0"]  # 0: of another container
    return ", ".join(map(_described, seen)) or "another process"


def _described(pid: str) -> str:
    command = _text_of(Path("/proc", pid, "cmdline")).replace("\0", " ")
    stopped = ", stopped" if "State:\tT" in _text_of(Path("/proc", pid, "status")) else ""
    return f"process {pid} ({one_line(command, 100) or 'unknown'}{stopped})"


def _opened(name: str) -> int:
    """Return the descriptor of a lock file; a training opens two in every step."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = os.environ.get(LEASE_FOLDER_VARIABLE) or f"/tmp/hwnas-lease-{user}"
    path = os.path.join(folder, name)  # noqa: PTH118 - a Path takes as long as the opening
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
