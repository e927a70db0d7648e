from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.core import host
from nas.core.errors import ConfigError, HostBusyError
from nas.core.host import LEASE_FOLDER_VARIABLE, measuring, training_step

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")

PATIENCE_S = 60  # how long a busy machine may take; nothing waits that long where it works

TRAIN = """
import time
from nas.core.host import training_step
while True:
    with training_step():
        print("step", flush=True)
        time.sleep(0.02)
"""
HOLD = """
import time
from nas.core.host import {lease}
with {lease}():
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep apart from what else is measured on this host."""
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path / "lease"))


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """Run code in another process that has begun to print."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline()
            yield started
        finally:
            started.kill()


def acquired(lease: object, *, within_s: float) -> bool:
    """Return whether a lease is granted in time; it is given back at once."""
    granted = threading.Event()

    def take() -> None:
        with lease():  # type: ignore[operator]
            granted.set()

    threading.Thread(target=take, daemon=True).start()
    return granted.wait(within_s)


@pytest.mark.parametrize("lease", [training_step, measuring])
def test_a_measurement_in_another_process_excludes_everything(lease: object):
    with process(HOLD.format(lease="measuring")):
        assert not acquired(lease, within_s=0.3)
    assert acquired(lease, within_s=PATIENCE_S)


def test_trainings_share_and_a_measurement_waits_for_them():
    with process(HOLD.format(lease="training_step")):
        assert acquired(training_step, within_s=PATIENCE_S)
        assert not acquired(measuring, within_s=0.3)


@pytest.mark.parametrize("held", ["training_step", "measuring"])
def test_a_killed_process_gives_its_lease_back(held: str):
    with process(HOLD.format(lease=held)) as holder:
        holder.kill()
        holder.wait()
        assert acquired(measuring, within_s=PATIENCE_S)


def test_a_stream_of_trainings_does_not_starve_a_measurement():
    with process(TRAIN), process(TRAIN), process(TRAIN):
        for _ in range(3):
            assert acquired(measuring, within_s=PATIENCE_S)


def test_measurements_never_overlap():
    running, most = 0, 0
    guard = threading.Lock()

    def measure() -> None:
        nonlocal running, most
        for _ in range(5):
            with measuring():
                with guard:
                    running += 1
                    most = max(most, running)
                time.sleep(0.005)
                with guard:
                    running -= 1

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert most == 1


def test_who_waits_learns_for_whom_and_gives_up(monkeypatch: pytest.MonkeyPatch):
    """A process that is stopped keeps the host, which the kernel alone would wait for for ever."""
    monkeypatch.setattr(host, "NOTICE_S", 0.2)
    monkeypatch.setenv(host.PATIENCE_VARIABLE, "1.0")
    notices: list[str] = []
    with process(HOLD.format(lease="measuring")) as holder:
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(HostBusyError) as measuring_gave_up, measuring(notices.append):
            pass
        with pytest.raises(HostBusyError) as training_gave_up, training_step():
            pass
        held_by = host.measured_by()
    assert notices
    lines = [*notices, str(measuring_gave_up.value), str(training_gave_up.value), str(held_by)]
    for line in lines:
        assert "\n" not in line
        if host._LOCKS.exists():
            assert f"process {holder.pid} " in line
            assert "stopped" in line
    assert host.measured_by() is None


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan"])
def test_a_patience_that_is_no_time_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(host.PATIENCE_VARIABLE, seconds)
    with (
        process(HOLD.format(lease="measuring")),
        pytest.raises(ConfigError, match=host.PATIENCE_VARIABLE),
        training_step(),
    ):
        pass


def test_an_exception_gives_the_lease_back():
    with pytest.raises(RuntimeError), measuring():
        raise RuntimeError
    assert acquired(measuring, within_s=PATIENCE_S)


def test_a_job_with_a_temporary_folder_of_its_own_shares_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(LEASE_FOLDER_VARIABLE)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with training_step():
        assert not list(tmp_path.iterdir())
