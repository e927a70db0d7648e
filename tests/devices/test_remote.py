"""Measuring on another machine by SSH, here on a server of this host."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_device import FAST
from onnx_files import SHAPE, ModelFactory
from ssh_server import SshServer

import nas.devices
from nas.core.errors import ConfigError, DeviceError
from nas.core.host import LEASE_FOLDER_VARIABLE, measuring
from nas.core.measurement import Device
from nas.devices.measuring.process import COMMAND, MeasuringProcess
from nas.devices.measuring.runtime import random_images

ENDLESS = {"min_rounds": 1_000_000, "max_seconds_per_model": 1e6}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("board")) as running:
        yield running


class InBackground:
    """A measurement in a thread of its own."""

    def __init__(self, device: Device, files: list[Path]) -> None:
        self.result: Any = None
        self.error: DeviceError | None = None
        self.thread = threading.Thread(target=self._run, args=[device, files], daemon=True)
        self.thread.start()

    def _run(self, device: Device, files: list[Path]) -> None:
        try:
            self.result = device.measure_files(files, SHAPE)
        except DeviceError as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(100)
        assert not self.thread.is_alive()


def failure(device: Device, files: list[Path]) -> str:
    with pytest.raises(DeviceError) as caught:
        device.measure_files(files, SHAPE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_board_measures_as_this_machine_does(
    board: SshServer, conv_model: ModelFactory, linear_model: ModelFactory
) -> None:
    files = [conv_model(1), linear_model(2.5)]  # the second one is sent in several parts
    local = nas.devices.get("cpu", **FAST)
    there = board.device().measure_files(files, SHAPE, memory=True, seed=3)
    here = local.measure_files(files, SHAPE, memory=True, seed=3)
    for remote, plain in zip(there, here, strict=True):
        assert len(remote.samples_ms) >= 36
        assert remote.peak_memory_mb is not None
        assert remote.device == plain.device | {"name": "remote"}
        assert remote.protocol.keys() == plain.protocol.keys()
        assert remote.environment.keys() == plain.environment.keys()
        assert remote.model_size_mb == plain.model_size_mb
    assert board.device().identity() == local.identity() | {"name": "remote"}


def test_outputs_are_run_on_the_board(board: SshServer, conv_model: ModelFactory) -> None:
    batches = [random_images((2, *SHAPE)), random_images((1, *SHAPE))]
    there = list(board.device().outputs(conv_model(2), batches))
    here = list(nas.devices.get("cpu", **FAST).outputs(conv_model(2), batches))
    for got, expected in zip(there, here, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_lost_connection_is_one_line_and_frees_the_board(
    board: SshServer, conv_model: ModelFactory
) -> None:
    job = InBackground(board.device(**ENDLESS), [conv_model(1)])
    lock = board.lease / "room"
    while not lock.exists() or _is_free(board):
        assert job.error is None, job.error
        time.sleep(0.1)
    assert board.disconnect()
    job.join()
    assert str(job.error).startswith("ssh ")
    assert "died during" in str(job.error)
    assert "\n" not in str(job.error)
    [again] = board.device().measure_files([conv_model(1)], SHAPE)
    assert again.latency_ms > 0


def _is_free(board: SshServer) -> bool:
    import fcntl

    with (board.lease / "room").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def test_two_searches_at_once_wait_for_each_other(
    board: SshServer, conv_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(board.lease))
    with measuring():
        jobs = [InBackground(board.device(timeout_seconds=5.0), [conv_model(1)]) for _ in range(2)]
        time.sleep(8)  # longer than the time limit: waiting for the board is no silence
        assert all(job.thread.is_alive() for job in jobs)
    for job in jobs:
        job.join()
        assert job.error is None
        assert job.result


def test_a_board_without_the_package_says_what_to_install(
    board: SshServer, conv_model: ModelFactory
) -> None:
    line = failure(board.device(python=f"{sys.executable} -I -S"), [conv_model(1)])
    assert "pip install 'hwnas[agent]'" in line
    assert line.startswith("ssh ")


def test_a_board_that_is_too_slow_says_so(
    board: SshServer, conv_model: ModelFactory, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 30\n")
    slow.chmod(0o755)
    line = failure(board.device(python=str(slow), timeout_seconds=1.0), [conv_model(1)])
    assert "within 1 s" in line
    assert "device.timeout_seconds" in line


def test_a_board_that_is_not_there_fails_with_its_cause(conv_model: ModelFactory) -> None:
    if not Path("/usr/bin/ssh").exists():
        pytest.skip("no ssh here")
    device = nas.devices.get("remote", command="ssh -F none -p 1 127.0.0.1")
    assert "Connection refused" in failure(device, [conv_model(1)])


def test_a_bad_network_is_named_as_it_is_called_here(board: SshServer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is not a model")
    line = failure(board.device(), [broken])
    assert f"{broken}: onnxruntime cannot load it" in line


def test_another_release_is_refused(
    board: SshServer, conv_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas, "__version__", "9.9")
    assert "expected 9.9" in failure(board.device(), [conv_model(1)])


def test_a_folder_of_files_arrives_whole(tmp_path: Path) -> None:
    network = tmp_path / "network"
    (network / "parts").mkdir(parents=True)
    contents = {"a.bin": b"", "parts/b.bin": bytes(range(256)) * 10_000}
    for name, content in contents.items():
        (network / name).write_bytes(content)
    with MeasuringProcess(timeout_seconds=60, command=COMMAND, place="here") as process:
        there = Path(process.send(network, "network0"))
        assert there != network
        assert {name: (there / name).read_bytes() for name in contents} == contents
        # What is sent again replaces what was there.
        assert Path(process.send(network, "network0")) == there
        assert (there / "parts/b.bin").read_bytes() == contents["parts/b.bin"]
    assert not there.exists()


def test_a_client_that_is_silent_loses_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path))
    code = "from nas.devices.measuring import worker\nworker.SILENCE_SECONDS = 1\nworker.main()\n"
    command = (sys.executable, "-c", code)
    with MeasuringProcess(timeout_seconds=60, command=command) as process:
        process.ask("lease", about="lease")
        with measuring():
            pass
        with pytest.raises(DeviceError, match="SIGALRM"), contextlib.suppress(BrokenPipeError):
            process.ask("load_average", about="load")


@pytest.mark.parametrize("field", [{"command": ""}, {"command": "ssh 'pi"}, {"python": " "}])
def test_a_command_that_is_none_is_refused(field: dict[str, str]) -> None:
    (name,) = field
    with pytest.raises(ConfigError, match=rf"device\.{name}: got"):
        nas.devices.get("remote", **({"command": "ssh pi@board"} | field))


def test_nothing_to_measure_asks_nobody_and_settings_lead_back() -> None:
    device = nas.devices.get("remote", command="ssh nowhere.invalid", threads=4)
    assert device.measure_files([], SHAPE) == []
    assert nas.devices.get(**nas.devices.registry.settings(device)) == device
