"""The agent: what a board runs so that others may measure on it.

Needs the standard library, NumPy and the runtime; the process that answers loads not even the
runtime, which lives in the process of a job.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import shutil
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, BinaryIO, cast

from nas.core.errors import HwnasError
from nas.devices.agent.leases import Leases
from nas.devices.agent.protocol import (
    ID,
    JSON_BYTES,
    SHA256,
    JobRequest,
    Limits,
    Refusal,
    one_line,
)

_SOCKET_SECONDS = 30.0
_EXPIRY_SECONDS = 0.2
_DRAINED_BYTES = 1 << 20
_DELETIONS = 50
_HOLDER_LETTERS = 100


class Agent:
    """A serving agent; a context manager that leaves nothing behind."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        limits: Limits,
        log: Callable[[str], None],
    ) -> None:
        """Listen; `serve` then answers.

        Args:
            host: Address to listen at.
            port: To listen at; 0 for any free one.
            token: That clients must show.
            limits: What is allowed.
            log: Told of what happens, a line each.

        Raises:
            HwnasError: There is no listening there, or no folder for files.
        """
        try:
            self._server = _Server(host, port)
        except OSError as error:
            fix = "choose another --port, or another --host"
            raise HwnasError(f"{host}:{port}: cannot listen ({error.strerror}); {fix}") from error
        self.port = int(self._server.server_address[1])
        try:
            self._folder = _empty_folder(self.port)
        except BaseException:
            self._server.server_close()
            raise
        self._leases = Leases(limits, self._folder, log)
        self._server.served = _Served(token, self._leases, log)
        self._stop = threading.Event()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def serve(self) -> None:
        """Answer until the process is interrupted."""
        threading.Thread(target=self._expire, daemon=True).start()
        self._server.serve_forever(poll_interval=_EXPIRY_SECONDS)

    def close(self) -> None:
        """End what runs and delete all files."""
        self._stop.set()
        self._server.server_close()
        self._leases.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _expire(self) -> None:
        while not self._stop.wait(_EXPIRY_SECONDS):
            self._leases.expire()


class _Served:
    """What the requests of a server share."""

    def __init__(self, token: str, leases: Leases, log: Callable[[str], None]) -> None:
        self.authorization = f"Bearer {token}".encode()
        self.leases = leases
        self.log = log


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    served: _Served

    def __init__(self, host: str, port: int) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not the parent's, which looks up the host's name and may wait long for it.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong; a client that went away is nothing wrong."""
        del request
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            self.served.log(f"{client_address[0]}: {type(error).__name__}: {one_line(error)}")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "hwnas"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _SOCKET_SECONDS

    def _lease(self, lease: str) -> dict[str, Any]:
        record = self._json()
        holder = record.get("holder") if isinstance(record, dict) else None
        if not isinstance(holder, str) or not holder.strip():
            raise Refusal(HTTPStatus.BAD_REQUEST, "expected an object with holder, a text")
        self.server.served.leases.acquire(lease, one_line(holder, _HOLDER_LETTERS))
        limits = self.server.served.leases.limits
        return {"model_mb": limits.model_mb, "job_seconds": limits.job_seconds}

    def _release(self, lease: str) -> dict[str, Any]:
        self.server.served.leases.release(lease)
        return {}

    def _files(self, lease: str) -> dict[str, Any]:
        return {"files": self.server.served.leases.files(lease)}

    def _file(self, lease: str, sha256: str) -> dict[str, Any]:
        body = cast("BinaryIO", self.rfile)
        self.server.served.leases.receive(lease, sha256, body, self._length())
        self._unread = 0
        return {}

    def _start(self, lease: str, job: str) -> dict[str, Any]:
        self.server.served.leases.start(lease, job, JobRequest.from_dict(self._json()))
        return {}

    def _state(self, job: str) -> dict[str, Any]:
        return self.server.served.leases.state(job)

    _ROUTES: tuple[tuple[str, re.Pattern[str], Callable[..., dict[str, Any]]], ...] = (
        ("PUT", re.compile(f"/leases/({ID})"), _lease),
        ("DELETE", re.compile(f"/leases/({ID})"), _release),
        ("GET", re.compile(f"/leases/({ID})/files"), _files),
        ("PUT", re.compile(f"/leases/({ID})/files/({SHA256})"), _file),
        ("PUT", re.compile(f"/leases/({ID})/jobs/({ID})"), _start),
        ("GET", re.compile(f"/jobs/({ID})"), _state),
    )

    def _handle(self) -> None:
        self._unread = 0
        try:
            self._authorise()
            status, answer = HTTPStatus.OK, self._routed()
        except Refusal as refusal:
            status, answer = refusal.status, {"error": refusal.line}
            if status != HTTPStatus.CONFLICT:  # whoever waits for the board asks every second
                self.server.served.log(f"{self.client_address[0]}: {status.value} {refusal.line}")
        self._answer(status, answer)

    do_GET = do_PUT = do_DELETE = do_POST = do_HEAD = do_PATCH = do_OPTIONS = _handle  # noqa: N815

    def _authorise(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if re.fullmatch("[0-9]{1,15}", length) else 0
        shown = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(shown, self.server.served.authorization):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or another one")

    def _routed(self) -> dict[str, Any]:
        found = False
        for method, pattern, function in self._ROUTES:
            match = pattern.fullmatch(self.path)
            if match and method == self.command:
                return function(self, *match.groups())
            found = found or match is not None
        if found:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "that is not done with this address")
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such address")

    def _length(self) -> int:
        if not re.fullmatch("[0-9]{1,15}", self.headers.get("Content-Length", "")):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "expected Content-Length")
        return self._unread

    def _json(self) -> Any:
        length = self._length()
        if length > JSON_BYTES:
            line = f"the request has {length} bytes, expected {JSON_BYTES} at most"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line)
        body = self.rfile.read(length)
        self._unread = 0
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the request is not JSON") from None

    def _answer(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        # One request a connection: there is no state to go wrong when a network drops.
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True
        if self._unread:
            # A connection that is closed on unread bytes is reset, and the answer lost with it.
            self.wfile.flush()
            self.rfile.read(min(self._unread, _DRAINED_BYTES))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that cannot even be read as all others: in one line of JSON."""
        del explain
        self._unread = 0
        self.command = self.command or ""
        line = one_line(message or HTTPStatus(code).phrase, 100)
        self._answer(HTTPStatus(code), {"error": line})

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the parent's name
        """Say nothing: the leases tell what is worth knowing."""


def _empty_folder(port: int) -> Path:
    """Return an empty folder of this user; what a killed agent left in it is deleted.

    Raises:
        HwnasError: It cannot be made, or belongs to somebody else.
    """
    folder = Path(tempfile.gettempdir()) / f"hwnas-agent-{os.getuid()}-{port}"
    for _ in range(_DELETIONS):
        if folder.is_symlink() or not folder.is_dir():
            break
        # A job of the killed agent may be putting its own things away.
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_EXPIRY_SECONDS)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        fix = "delete it, or set TMPDIR to another folder"
        raise HwnasError(f"{folder}: cannot be made ({error.strerror}); {fix}") from error
    return folder
