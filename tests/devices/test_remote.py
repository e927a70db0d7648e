"""Measuring over a network that fails, on a board that fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from agent_process import FAST, LONG, TOKEN, AgentProcess
from conftest import SHAPE, ModelFactory
from faulty_proxy import FAULTS, FaultyProxy

import nas.devices
from nas.core.errors import ConfigError, DeviceError, HwnasError
from nas.core.measurement import Device
from nas.devices.measuring.runner import random_images

BUSY = "has been measuring for"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path_factory.mktemp("agent")) as running:
        yield running


class InBackground:
    """A measurement in a thread of its own."""

    def __init__(self, device: Device, files: list[Path]) -> None:
        self.result: Any = None
        self.error: DeviceError | None = None
        self._thread = threading.Thread(target=self._run, args=[device, files], daemon=True)
        self._thread.start()

    def _run(self, device: Device, files: list[Path]) -> None:
        try:
            self.result = device.measure_files(files, SHAPE)
        except DeviceError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def failure(device: Device, files: list[Path]) -> str:
    with pytest.raises(DeviceError) as caught:
        device.measure_files(files, SHAPE)
    line = str(caught.value)
    assert "\n" not in line
    assert TOKEN not in line
    return line


def assert_nothing_left(agent: AgentProcess) -> None:
    agent.until(lambda: not agent.files() and not agent.children() and not agent.temporary())


def test_a_measurement_equals_a_local_one_in_everything_but_timing(
    agent: AgentProcess, conv_model: ModelFactory
) -> None:
    files = [conv_model(1), conv_model(2), conv_model(1)]
    local = nas.devices.get("cpu", **FAST)
    there = agent.remote().measure_files(files, SHAPE, memory=True, seed=3, seconds_per_model=0.5)
    here = local.measure_files(files, SHAPE, memory=True, seed=3, seconds_per_model=0.5)
    timed = {"rounds", "rounds_repeated", "inferences_per_block"}
    for remote, plain in zip(there, here, strict=True):
        assert len(remote.samples_ms) >= 36
        assert remote.peak_memory_mb is not None
        assert remote.device == plain.device
        assert remote.protocol.keys() == plain.protocol.keys()
        assert remote.environment.keys() == plain.environment.keys()
        assert all(remote.protocol[k] == v for k, v in plain.protocol.items() if k not in timed)
        # Numbers with a fraction are of the moment: load, frequency.
        facts = {k: v for k, v in plain.environment.items() if not isinstance(v, float)}
        kept = {k: v for k, v in facts.items() if k != "timestamp_utc"}
        assert {k: remote.environment[k] for k in kept} == kept
    assert agent.remote().identity() == local.identity()
    assert_nothing_left(agent)


def test_a_network_is_prepared_here_and_measured_there(agent: AgentProcess) -> None:
    from torch import nn

    measurement = agent.remote().measure(nn.Conv2d(3, 8, 3), (3, 8, 8))
    assert measurement.latency_ms > 0


def test_the_identity_is_asked_for_once(agent: AgentProcess) -> None:
    device = agent.remote(target={"threads": 2})
    before = agent.log().count("asks what is here")
    assert device.identity()["threads"] == 2
    device.identity()["threads"] = 3
    assert device.identity()["threads"] == 2
    assert agent.log().count("asks what is here") == before + 1


def test_nothing_to_measure_asks_nobody() -> None:
    device = nas.devices.get("remote", address="nowhere.invalid:1")
    assert device.measure_files([], SHAPE) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_every_step_may_fail_once_and_nothing_is_measured_twice(
    agent: AgentProcess, conv_model: ModelFactory, fault: str
) -> None:
    before = agent.log().count("networks measured")
    faults = itertools.cycle([fault, None])
    with FaultyProxy(("127.0.0.1", agent.port), faults) as proxy:
        device = agent.remote(address=proxy.address)
        taken = device.measure_files([conv_model(1), conv_model(2)], SHAPE)
        assert proxy.connections >= 6
    assert [len(m.samples_ms) >= 36 for m in taken] == [True, True]
    assert agent.log().count("networks measured") == before + 1
    assert_nothing_left(agent)


def test_a_result_is_kept_for_a_client_that_was_away_longer_than_its_lease(
    tmp_path: Path, conv_model: ModelFactory
) -> None:
    def faults() -> Iterator[str | None]:
        yield from [None] * 4  # lease, list, upload and start
        # The pauses between tries grow, until one is longer than the lease.
        while "has gone silent" not in agent.log():
            yield "no_result"

    with (
        AgentProcess(tmp_path, "--lease-seconds", "1.5") as agent,
        FaultyProxy(("127.0.0.1", agent.port), faults()) as proxy,
    ):
        assert agent.remote(address=proxy.address).measure_files([conv_model(1)], SHAPE)
        assert agent.log().count("has gone silent") == 1
        assert agent.log().count("networks measured") == 1


def test_a_board_that_is_not_there_fails_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, conv_model: ModelFactory
) -> None:
    monkeypatch.setenv("HWNAS_TOKEN", TOKEN)
    device = nas.devices.get("remote", address="127.0.0.1:1", retry_seconds=1.0)
    line = failure(device, [conv_model(1)])
    assert line.startswith("127.0.0.1:1: no answer to PUT ([Errno 111] Connection refused) after 3")


def test_a_service_that_is_no_agent_is_told_from_one(
    monkeypatch: pytest.MonkeyPatch, conv_model: ModelFactory
) -> None:
    monkeypatch.setenv("HWNAS_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                with listener.accept()[0] as client:
                    client.recv(1 << 16)
                    client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        device = nas.devices.get("remote", address=f"127.0.0.1:{port}", retry_seconds=0.1)
        assert "no answer to PUT (SSH-2.0-OpenSSH_9.2)" in failure(device, [conv_model(1)])


def test_an_agent_that_is_killed_and_started_anew_does_the_job_again(
    tmp_path: Path, conv_model: ModelFactory
) -> None:
    with AgentProcess(tmp_path) as agent:
        job = InBackground(agent.remote(target={"min_rounds": 1500}), [conv_model(20)])
        agent.until_logged("networks measured")
        agent.until(lambda: len(agent.children()) >= 2)
        orphans = agent.kill()
        agent.start(agent.port)
        agent.until(lambda: not any(map(_runs, orphans)))
        job.join()
        assert job.error is None
        assert len(job.result[0].samples_ms) >= 1500
        assert agent.log().count("networks measured") == 2
        assert_nothing_left(agent)


def test_an_agent_that_is_lost_for_good_fails_the_measurement(
    tmp_path: Path, conv_model: ModelFactory
) -> None:
    with AgentProcess(tmp_path) as agent:
        job = InBackground(agent.remote(target=LONG, retry_seconds=1.0), [conv_model(1)])
        agent.until_logged("networks measured")
        agent.kill()
        job.join()
        assert "no answer to " in str(job.error)
        assert "tries in" in str(job.error)


def test_an_agent_that_is_told_to_stop_leaves_nothing(
    tmp_path: Path, conv_model: ModelFactory
) -> None:
    with AgentProcess(tmp_path) as agent:
        job = InBackground(agent.remote(target=LONG, retry_seconds=0.5), [conv_model(1)])
        agent.until_logged("networks measured")
        agent.until(lambda: len(agent.children()) >= 2)
        children = agent.children()
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(30) == 0
        # Python's own helper of multiprocessing ends when it notices that the agent has.
        psutil.wait_procs(children, timeout=10)
        assert not any(map(_runs, children))
        assert not agent.folder.exists()
        assert not agent.temporary()
        job.join()
        assert job.error is not None


def test_a_second_client_is_told_who_measures_and_waits(
    agent: AgentProcess, conv_model: ModelFactory
) -> None:
    count = agent.log().count("networks measured")
    first = InBackground(agent.remote(target={"min_rounds": 1500}), [conv_model(20)])
    agent.until_logged("networks measured", count + 1)
    line = failure(agent.remote(busy_seconds=0.0), [conv_model(1)])
    assert f"busy, {os.uname().nodename}, process {os.getpid()} {BUSY}" in line
    assert first.result is None
    second = InBackground(agent.remote(busy_seconds=60.0), [conv_model(1)])
    first.join()
    second.join()
    assert (first.error, second.error) == (None, None)


def test_a_job_over_its_time_is_ended(agent: AgentProcess, conv_model: ModelFactory) -> None:
    line = failure(agent.remote(target=LONG, job_seconds=1.0), [conv_model(1)])
    assert "took longer than its limit of 1 s and was ended" in line
    assert_nothing_left(agent)


CLIENT = """
import json, sys
from pathlib import Path
import nas.devices
device = nas.devices.get(**json.loads(sys.argv[1]))
device.measure_files([Path(sys.argv[2])], (8, 16, 16))
"""


def test_a_killed_client_loses_the_board(tmp_path: Path, conv_model: ModelFactory) -> None:
    with AgentProcess(tmp_path, "--lease-seconds", "2") as agent:
        settings = nas.devices.registry.settings(agent.remote(target=LONG))
        arguments = [json.dumps(settings), str(conv_model(1))]
        with subprocess.Popen([sys.executable, "-c", CLIENT, *arguments]) as client:
            agent.until_logged("networks measured")
            client.kill()
        agent.until_logged("has gone silent and loses the board")
        assert_nothing_left(agent)
        assert agent.remote().measure_files([conv_model(1)], SHAPE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model-mb", "0.001"], "MB, expected 0.001 MB at most"),
        (["--folder-mb", "0.003"], "all files together exceed 0.003 MB; measure fewer at a time"),
        (["--job-seconds", "0.1"], "took longer than its limit of 0.1 s"),
    ],
)
def test_what_the_board_allows_holds(
    tmp_path: Path, conv_model: ModelFactory, arguments: list[str], expected: str
) -> None:
    with AgentProcess(tmp_path, *arguments) as agent:
        assert expected in failure(agent.remote(), [conv_model(1), conv_model(2)])
        assert_nothing_left(agent)


def test_another_token_is_refused_at_once(
    agent: AgentProcess, conv_model: ModelFactory, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("another-token-of-the-tests")
    line = failure(agent.remote(token_file=str(tmp_path / "token")), [conv_model(1)])
    assert line.endswith("another one; set HWNAS_TOKEN or device.token_file to the agent's")


def test_no_token_is_an_error_that_says_where_it_belongs(agent: AgentProcess) -> None:
    with pytest.raises(HwnasError, match="got no token, expected the agent's; set HWNAS_TOKEN"):
        agent.remote(token_file=None).identity()


def test_a_bad_network_is_named_as_it_is_called_here(agent: AgentProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is not a model")
    line = failure(agent.remote(), [broken])
    assert line.startswith(f"{agent.address}: {broken}: ONNX Runtime cannot load it")
    assert_nothing_left(agent)


def test_a_missing_file_is_named(agent: AgentProcess, tmp_path: Path) -> None:
    assert "missing.onnx: cannot be read" in failure(agent.remote(), [tmp_path / "missing.onnx"])


@pytest.mark.parametrize("address", ["board", "board:", ":7000", "board:x", "http://a:1", "a:1/b"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"device\.address: got .* expected HOST:PORT"):
        nas.devices.get("remote", address=address)


def test_a_device_elsewhere_is_not_itself_elsewhere() -> None:
    inner = {"name": "remote", "address": "a:1"}
    with pytest.raises(ConfigError, match=r"device\.target\.name: got 'remote'"):
        nas.devices.get("remote", address="b:1", target=inner)


def test_settings_lead_back_and_hold_no_secret(agent: AgentProcess) -> None:
    device = agent.remote(target={"threads": 4})
    settings = nas.devices.registry.settings(device)
    assert settings["target"]["name"] == "cpu"
    assert settings["target"]["threads"] == 4
    assert TOKEN not in str(settings)
    assert nas.devices.get(**settings) == device


def test_the_log_holds_no_secret(agent: AgentProcess) -> None:
    assert agent.log()
    assert TOKEN not in agent.log()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_outputs_are_run_here(conv_model: ModelFactory, tmp_path: Path) -> None:
    # Images are not sent to a board: nothing listens at this address.
    board = nas.devices.get("remote", address="127.0.0.1:1", token_file=str(tmp_path / "none"))
    batch = random_images((2, *SHAPE))
    [outputs] = board.outputs(conv_model(2), [batch])
    assert outputs.shape[0] == 2
