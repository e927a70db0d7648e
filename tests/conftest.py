"""What holds for all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.core.host import LEASE_FOLDER_VARIABLE, one_thread

# What benchmarks share; appended, so that installed packages come before folders of the same name.
sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))

# What a shell starts in the background ignores SIGINT, and so would commands that tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def session_lease(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let processes that run tests side by side not wait for each other's measurements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path_factory.mktemp("lease")))
        yield


@pytest.fixture(scope="session", autouse=True)
def single_threaded() -> Iterator[None]:
    """Small matrices are worked on faster without threads that wait for each other."""
    with one_thread():
        yield
