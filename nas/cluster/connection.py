"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import ray

from nas.core.errors import ConfigError, first_line
from nas.core.host import usable_cores

CONNECT_TIMEOUT_S = 10.0
"""Seconds in which a cluster's head must answer."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this host, for the time of a `with` block.

    A connection that there is already serves the block and outlasts it.

    Args:
        address: Of a running cluster (`auto` finds the one on this host); `None` starts one.

    Raises:
        ConfigError: There is no such cluster, or none can be started.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address is None:
            # Without an address Ray would look for a cluster in the environment first.
            ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
        else:
            _check_reachable(address)
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        expected = "the address of a running cluster" if address else "a host that Ray starts on"
        fix = f"start one with `ray start --head` ({first_line(error)})"
        raise ConfigError("ray.address", address, expected, fix) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise an `OSError` where nothing answers: Ray itself tries for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
