"""What an agent answers to whoever knocks, and what it needs to run."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_process import FAST, TOKEN, AgentProcess
from conftest import SHAPE, ModelFactory

from nas.cli.main import main
from nas.devices.agent.protocol import JobRequest, new_id

LEASE, JOB, SHA = "a" * 32, "b" * 32, "c" * 64
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
HEAVY = {"torch", "ray", "optuna", "pandas", "onnx", "onnxruntime", "hydra", "matplotlib", "psutil"}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path_factory.mktemp("agent"), "--model-mb", "1") as running:
        yield running


@pytest.fixture
def lease(agent: AgentProcess) -> Iterator[str]:
    lease = new_id()
    assert ask(agent, "PUT", f"/leases/{lease}", {"holder": "tests"})[0] == 200
    yield lease
    ask(agent, "DELETE", f"/leases/{lease}")


def ask(
    agent: AgentProcess,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] = AUTHORIZED,
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=20)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, sent, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def request(**changes: Any) -> dict[str, Any]:
    return JobRequest(device={"name": "cpu"}, limit_seconds=10.0).to_dict() | changes


def assert_refused(answer: tuple[int, dict[str, Any]], status: int, text: str) -> None:
    got, record = answer
    assert (got, list(record)) == (status, ["error"])
    assert text in record["error"]
    assert "\n" not in record["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \xe9\xff"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", f"/leases/{LEASE}"), ("GET", f"/jobs/{JOB}"), ("POST", "/"), ("GET", "/nowhere")],
)
def test_nothing_is_told_without_the_token(
    agent: AgentProcess, headers: dict[str, str], method: str, path: str
) -> None:
    answer = ask(agent, method, path, {"holder": "me"} if method == "PUT" else None, headers)
    assert_refused(answer, 401, "the token is missing or another one")
    assert agent.files() == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/etc/passwd", 404),
        ("GET", "/leases/../../etc/passwd", 404),
        ("PUT", f"/leases/{LEASE}/files/../../../x", 404),
        ("PUT", f"/leases/{LEASE}/files/%2e%2e%2fx", 404),
        ("PUT", "/leases/short", 404),
        ("PUT", f"/leases/{LEASE.upper()}", 404),
        ("PUT", f"/leases/{LEASE}/files/{SHA}?x=1", 404),
        ("DELETE", f"/jobs/{JOB}", 405),
        ("POST", f"/leases/{LEASE}", 405),
        ("GET", f"/jobs/{JOB}", 404),
        ("GET", f"/leases/{LEASE}/files", 410),
        ("DELETE", f"/leases/{LEASE}", 410),
    ],
)
def test_an_address_that_is_none_is_refused(
    agent: AgentProcess, method: str, path: str, status: int
) -> None:
    got, answer = ask(agent, method, path)
    assert (got, list(answer)) == (status, ["error"])
    assert agent.files() == []


def test_files_and_jobs_need_a_lease(agent: AgentProcess) -> None:
    gone = "there is no such lease"
    assert_refused(ask(agent, "PUT", f"/leases/{LEASE}/files/{SHA}", b"x"), 410, gone)
    assert_refused(ask(agent, "PUT", f"/leases/{LEASE}/jobs/{JOB}", request()), 410, gone)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[]", b"1", b'{"holder": 1}', b"[" * 9999]
)
def test_a_lease_needs_a_holder(agent: AgentProcess, body: bytes) -> None:
    got, answer = ask(agent, "PUT", f"/leases/{LEASE}", body)
    assert (got, list(answer)) == (400, ["error"])
    assert agent.files() == []


def test_a_holder_is_shown_as_one_line(agent: AgentProcess) -> None:
    first, second = new_id(), new_id()
    holder = "a\nb\x1b[2J" + "x" * 1000
    assert ask(agent, "PUT", f"/leases/{first}", {"holder": holder})[0] == 200
    status, answer = ask(agent, "PUT", f"/leases/{second}", {"holder": "me"})
    assert status == 409
    assert answer["error"].startswith("a b?[2Jxxx")
    assert len(answer["error"]) < 200
    assert ask(agent, "PUT", f"/leases/{first}", {"holder": holder})[0] == 200
    assert ask(agent, "DELETE", f"/leases/{first}") == (200, {})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (request(seed=-1), "seed: got -1, expected a whole number"),
        (request(seed=True), "seed: got True"),
        (request(memory="yes"), "memory: got 'yes', expected true or false"),
        (request(input_shape=[3, 32]), "input_shape: got [3, 32], expected three whole numbers"),
        (request(input_shape=[3, 0, 32]), "input_shape"),
        (request(input_shape=[3, 1e9, 32]), "input_shape"),
        (request(seconds_per_model=0), "seconds_per_model"),
        (request(limit_seconds=float("inf")), "limit_seconds"),
        (request(limit_seconds=None), "limit_seconds"),
        (request(device="cpu"), "device: got 'cpu', expected settings"),
        (request(files="x"), "files"),
        (request(files=[{"sha256": SHA}]), "files: got {'sha256'"),
        (request(files=[{"sha256": "../x", "suffix": ".onnx"}]), "files.sha256: got '../x'"),
        (request(files=[{"sha256": SHA, "suffix": "/../x"}]), "files.suffix: got '/../x'"),
        (request(files=[{"sha256": SHA, "suffix": ".onnx"}]), f"file {SHA} is not uploaded"),
        (request(extra=1), "job: got"),
        ({}, "job: got {}, expected an object with device, files"),
        ([], "job: got [], expected an object"),
    ],
)
def test_a_bad_job_is_refused(agent: AgentProcess, lease: str, body: Any, text: str) -> None:
    assert_refused(ask(agent, "PUT", f"/leases/{lease}/jobs/{JOB}", body), 400, text)
    assert ask(agent, "GET", f"/jobs/{JOB}")[0] == 404
    assert agent.files() == [lease]


def test_a_bad_device_fails_the_job_in_one_line(agent: AgentProcess, lease: str) -> None:
    job = new_id()
    body = request(device={"name": "cpu", "threads": 0})
    assert ask(agent, "PUT", f"/leases/{lease}/jobs/{job}", body) == (200, {})
    assert ask(agent, "PUT", f"/leases/{lease}/jobs/{job}", body) == (200, {})
    other = ask(agent, "PUT", f"/leases/{lease}/jobs/{job}", request())
    assert_refused(other, 400, f"job {job} is another one")
    status, record = ask(agent, "GET", f"/jobs/{job}")
    assert status == 200
    assert "threads: got 0" in record["answer"]["error"]
    assert agent.files() == [lease]


def test_an_upload_is_checked_and_leaves_nothing_if_it_is_bad(
    agent: AgentProcess, lease: str, conv_model: ModelFactory
) -> None:
    content = conv_model(1).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    wrong = ask(agent, "PUT", f"/leases/{lease}/files/{SHA}", content)
    assert_refused(wrong, 422, f"the file's SHA-256 is {sha256}, expected {SHA}; send it again")
    large = ask(agent, "PUT", f"/leases/{lease}/files/{SHA}", bytes(1_000_001))
    assert_refused(large, 413, "the file has 1.0 MB, expected 1 MB at most")
    endless = AUTHORIZED | {"Transfer-Encoding": "chunked"}
    chunked = ask(agent, "PUT", f"/leases/{lease}/files/{sha256}", b"0\r\n\r\n", endless)
    assert_refused(chunked, 411, "expected Content-Length")
    assert agent.files() == [lease]
    for _ in range(2):
        assert ask(agent, "PUT", f"/leases/{lease}/files/{sha256}", content) == (200, {})
    assert ask(agent, "GET", f"/leases/{lease}/files") == (200, {"files": [sha256]})
    assert agent.files() == [lease, f"{lease}/{sha256}"]
    assert ask(agent, "DELETE", f"/leases/{lease}") == (200, {})
    assert agent.files() == []


def test_a_request_that_is_too_long_is_refused(agent: AgentProcess, lease: str) -> None:
    declared = AUTHORIZED | {"Content-Length": str(10**12)}
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=20)
    connection.putrequest("PUT", f"/leases/{lease}/jobs/{JOB}")
    for name, value in declared.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    assert_refused((response.status, json.loads(response.read())), 413, "expected 4194304 at most")
    connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"BREW /jobs HTTP/1.1\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused(agent: AgentProcess, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", agent.port), timeout=20) as client:
        client.sendall(sent)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert '"error": "' in answer.decode()
    # What does not even say that it is HTTP/1 is answered without a head.
    assert answer.startswith((f"HTTP/1.1 {status} ".encode(), b"{"))
    assert agent.process.poll() is None


def test_a_client_that_goes_away_within_a_request_leaves_nothing(
    agent: AgentProcess, lease: str
) -> None:
    head = f"PUT /leases/{lease}/files/{SHA} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", agent.port), timeout=20) as client:
        client.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + bytes(1000))
        agent.until(lambda: any(name.endswith(".part") for name in agent.files()))
    agent.until(lambda: agent.files() == [lease])
    assert "Traceback" not in agent.log()


SERVED = """
import sys, threading
from pathlib import Path
from nas.devices.agent.client import AgentClient
from nas.devices.agent.protocol import JobRequest, Limits, ModelFile
from nas.devices.agent.server import Agent
model = Path({model!r})
request = JobRequest(
    device={device!r}, files=(ModelFile.of(model),), input_shape={shape!r}, limit_seconds=60.0
)
with Agent("127.0.0.1", 0, {token!r}, Limits(), str) as agent:
    threading.Thread(target=agent.serve, daemon=True).start()
    address = f"127.0.0.1:{{agent.port}}"
    client = AgentClient(address=address, token={token!r}, busy_seconds=0.0, retry_seconds=1.0)
    answer = client.run(request, [model])
print(len(answer["measurements"]), {heavy!r} & set(sys.modules))
"""


def test_an_agent_loads_nothing_heavy(conv_model: ModelFactory) -> None:
    code = SERVED.format(
        token=TOKEN,
        model=str(conv_model(1)),
        device={"name": "cpu"} | FAST,
        shape=SHAPE,
        heavy=HEAVY,
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ran.stdout, ran.stderr) == ("1 set()\n", "")


def test_a_token_is_made_up_and_printed_where_none_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas.cli.main", "device", "serve", "--port", "0"]
    environment = {key: value for key, value in os.environ.items() if key != "HWNAS_TOKEN"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        name, token = process.stdout.readline().strip().split("=")
        assert name == "HWNAS_TOKEN"
        assert len(token) >= 32
        assert process.stdout.readline().startswith("serving at 127.0.0.1:")
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "70000"], "--port: got 70000, expected 0 to 65535"),
        (["--lease-seconds", "0"], "--lease-seconds: got 0.0, expected a number above 0"),
        (["--token-file", "missing"], "token_file: got 'missing', expected a file that holds"),
        (["--host", "256.1.1.1", "--port", "0"], "256.1.1.1:0: cannot listen ("),
    ],
)
def test_a_bad_argument_is_one_line(
    capfd: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["device", "serve", *arguments]) == 2
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith(f"nas: {expected}")


def test_a_port_in_use_is_one_line(agent: AgentProcess) -> None:
    command = [sys.executable, "-m", "nas.cli.main", "device", "serve", "--port", str(agent.port)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    line = f"nas: 127.0.0.1:{agent.port}: cannot listen (Address already in use); choose"
    assert ran.stderr.startswith(line)
    assert ran.stderr.count("\n") == 1
