"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from nas.cluster import reaper
from nas.core.ending import end_orderly, kept_handlers, uninterrupted
from nas.core.errors import ConfigError, HwnasError, first_line
from nas.core.files import if_abandoned, locked_folder
from nas.core.host import child_environment, usable_cores

CONNECT_TIMEOUT_S = 10.0
"""Seconds in which a cluster's head must answer."""

_SESSIONS, _PREFIX = Path("/tmp"), "hwnas-ray-"
"""Folders of Ray. The path of the user's temporary folder may be too long for its sockets."""

_TOKEN = secrets.token_hex(32)
"""Authentication token of the clusters that this process starts. Ray reads it once a process."""

_ENDED_S = 10.0
"""Seconds in which what remains of a cluster is cleared up."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this host, for the time of a `with` block.

    A connection that there is already serves the block and outlasts it. Of a cluster that is
    started here nothing stays, however this process ends. Its workers have the priority of this
    process, unless the environment's `RAY_worker_niceness` says something else.

    Args:
        address: Of a running cluster (`auto` finds the one on this host); `None` starts one.

    Raises:
        ConfigError: There is no such cluster.
        HwnasError: None can be started here.
    """
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as opened:
        opened.enter_context(kept_handlers())
        end_orderly()
        try:
            options: dict[str, Any] = {"address": address}
            group = os.getpgrp()
            if address is None:
                options, group = _of_new_cluster(opened)
            else:
                _check_reachable(address)
            opened.callback(_shut_down)
            # Ray's own handler of SIGTERM prints stacks and aborts.
            with kept_handlers(), _in_process_group(group):
                ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
            cause = first_line(error)
            if address is None:
                raise HwnasError(f"Ray cannot be started on this host: {cause}") from error
            fix = f"start one with `ray start --head` ({cause})"
            expected = "the address of a running cluster"
            raise ConfigError("ray.address", address, expected, fix) from error
        yield


def _of_new_cluster(opened: contextlib.ExitStack) -> tuple[dict[str, Any], int]:
    """Return how Ray starts a cluster here, and in which process group.

    `opened` clears up behind it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    token_known = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if not token_known and not (Path.home() / ".ray" / "auth_token").is_file():
        # Ray would write a token there, which may be impossible and which others could read.
        os.environ["RAY_AUTH_TOKEN"] = _TOKEN
        opened.callback(os.environ.pop, "RAY_AUTH_TOKEN", None)
    folder, group = opened.enter_context(_session_folder())
    options = {
        # Without an address Ray would look for a cluster in the environment first.
        "address": "local",
        "num_cpus": usable_cores(),
        "include_dashboard": False,
        "_temp_dir": str(folder),
    }
    return options, group


@contextlib.contextmanager
def _session_folder() -> Iterator[tuple[Path, int]]:
    """Make the folder of Ray's files and sockets; `nas.cluster.reaper` removes it.

    Yields:
        The folder, and the process group of the reaper.
    """
    for folder in _SESSIONS.glob(f"{_PREFIX}*"):
        if_abandoned(folder, reaper.clear)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SESSIONS))
    with locked_folder(folder) as lock:
        process = subprocess.Popen(
            [sys.executable, "-m", reaper.__name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            pass_fds=[lock],
            process_group=0,  # what ends this process's group does not end the reaper
            env=child_environment(),
        )
    try:
        yield folder, process.pid
    finally:
        with uninterrupted(), contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(reaper.ORDERLY, timeout=_ENDED_S)


@contextlib.contextmanager
def _in_process_group(group: int) -> Iterator[None]:
    """Move this process to another process group of its session for a `with` block.

    What it starts there stays there: a signal to the group that this process returns to, such as
    `timeout` and Slurm send, reaches this process alone, which then shuts Ray down in order. Ray
    would else end first, and this process with it.
    """
    own = os.getpgrp()
    # A group ends with its last process, and the one that leads it may have ended (`echo | nas`).
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as kept:
        with contextlib.suppress(PermissionError):  # the leader of a session stays in its own group
            os.setpgid(0, group)
        try:
            yield
        finally:
            if os.getpgrp() != own:
                os.setpgid(0, own)
        if kept.poll() is not None:  # a signal to the group has ended it
            raise KeyboardInterrupt


def _shut_down() -> None:
    with uninterrupted():
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise an `OSError` where nothing answers: Ray itself tries for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
