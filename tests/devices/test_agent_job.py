"""What an agent lets somebody else say: the device, the job and the token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nas.devices
from nas.core.errors import ConfigError, HwnasError
from nas.devices.agent.job import local_device
from nas.devices.agent.protocol import JobRequest, Refusal
from nas.devices.agent.secret import read_token


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ({}, "device.name: got None, expected one of"),
        ({"name": "os"}, "device.name: got 'os', expected one of"),
        ({"name": "agent.job"}, "device.name: got 'agent.job'"),
        ({"name": "remote", "address": "a:1"}, "got 'remote', expected a device of the board"),
        ({"name": "ray_node", "node": "a"}, "got 'ray_node', expected a device of the board"),
        ({"name": "cpu", "threads": "4"}, "device.threads: got '4', expected a value of the type"),
        ({"name": "cpu", "threads": True}, "device.threads: got True"),
        ({"name": "cpu", "block_ms": [1.0]}, "device.block_ms: got [1.0]"),
        ({"name": "cpu", "precision": {"a": 1}}, "device.precision"),
        ({"name": "cpu", "threads": 0}, "device.threads: got 0, expected"),
        ({"name": "cpu", "cores": 4}, "device 'cpu': got 'cores', expected a field of"),
    ],
)
def test_a_bad_device_is_refused(device: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        local_device(device)
    assert text in str(caught.value)


def test_every_local_device_passes_its_own_settings() -> None:
    device = nas.devices.get("cpu", threads=2, block_ms=1)
    sent = json.loads(json.dumps(nas.devices.registry.settings(device)))
    assert local_device(sent) == device


def test_a_request_survives_json() -> None:
    asked = JobRequest(device={"name": "cpu"}, input_shape=(3, 8, 8), limit_seconds=1.5, seed=3)
    assert JobRequest.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    with pytest.raises(Refusal):
        JobRequest.from_dict(None)


@pytest.mark.parametrize("content", ["", "short", "with a space in the token", "x" * 300])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(HwnasError, match="expected a token: 16 to 256") as caught:
        read_token(str(tmp_path / "token"))
    assert not content or content not in str(caught.value)


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"token_file: got .*missing.*\(No such file"):
        read_token(str(tmp_path / "missing"))
