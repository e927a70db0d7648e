"""The client of an agent, which takes a network for what it is: unreliable."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nas.core.errors import ConfigError, DeviceError
from nas.devices.agent.protocol import JobRequest, new_id, one_line

_REQUEST_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_BUSY_PAUSE_SECONDS = 1.0
_HASTE_SECONDS = 2.0
_ATTEMPTS = 3
_ANSWER_BYTES = 256 << 20


class _LeaseLostError(Exception):
    """The agent does not know the lease or the job any more."""


class _BusyError(Exception):
    """Somebody else has the board."""


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of `HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        ConfigError: It is something else.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.netloc != address or "@" in address:
        raise ConfigError("device.address", address, "HOST:PORT, such as raspberrypi.local:7000")
    return host, port


@dataclass(frozen=True, kw_only=True)
class AgentClient:
    """One way to an agent.

    Attributes:
        address: `HOST:PORT`.
        token: The agent's.
        busy_seconds: How long to wait for somebody else's measurement.
        retry_seconds: Without an answer after which the board is lost.
    """

    address: str
    token: str
    busy_seconds: float
    retry_seconds: float

    def run(self, request: JobRequest, files: Sequence[Path]) -> Any:
        """Have a job done.

        A job keeps its name over every try, so that one whose answer was lost is not done again;
        only when the agent itself has forgotten it, because it was started anew or has not heard
        from here for long, it begins once more.

        Returns:
            The answer of `run_job`.

        Raises:
            DeviceError: The board cannot be reached, refuses, or loses the job.
        """
        job = new_id()
        for _ in range(_ATTEMPTS):
            try:
                with self._lease() as lease:
                    self._upload(lease, request, files)
                    self._request("PUT", f"/leases/{lease}/jobs/{job}", request.to_dict())
                    return self._answer(job)
            except _LeaseLostError:
                with contextlib.suppress(_LeaseLostError):
                    return self._answer(job)
        again = "was it started anew, or ended by the system? its log says"
        raise DeviceError(f"{self.address}: the agent lost the job {_ATTEMPTS} times; {again}")

    @contextlib.contextmanager
    def _lease(self) -> Iterator[str]:
        lease, waited_from = new_id(), time.monotonic()
        holder = f"{socket.gethostname()}, process {os.getpid()}"
        while True:
            try:
                self._request("PUT", f"/leases/{lease}", {"holder": holder})
                break
            except _BusyError as busy:
                waited = time.monotonic() - waited_from
                if waited >= self.busy_seconds:
                    line = f"{self.address}: busy, {busy}; waited {waited:.0f} s"
                    fix = "try again later, or raise device.busy_seconds"
                    raise DeviceError(f"{line}; {fix}") from None
            time.sleep(min(_BUSY_PAUSE_SECONDS, self.busy_seconds))
        try:
            yield lease
        finally:
            # Not for long: the agent takes a board back by itself when nobody asks any more.
            hasty = dataclasses.replace(self, retry_seconds=min(self.retry_seconds, _HASTE_SECONDS))
            with contextlib.suppress(_LeaseLostError, DeviceError):
                hasty._request("DELETE", f"/leases/{lease}")

    def _upload(self, lease: str, request: JobRequest, files: Sequence[Path]) -> None:
        paths = {file.sha256: path for file, path in zip(request.files, files, strict=True)}
        there = self._request("GET", f"/leases/{lease}/files").get("files") if paths else []
        for sha256, path in paths.items():
            if sha256 not in (there or []):
                self._request("PUT", f"/leases/{lease}/files/{sha256}", path)

    def _answer(self, job: str) -> Any:
        answer = None
        while answer is None:  # the agent keeps every question waiting for a while
            answer = self._request("GET", f"/jobs/{job}").get("answer")
        return answer

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | Path | None = None,
    ) -> dict[str, Any]:
        """Send a request, again and again while the network or the agent is down.

        Raises:
            DeviceError: The board is lost, or refuses.
            _LeaseLostError: It does not know the lease or the job.
            _BusyError: Somebody else has it.
        """
        start, pause, tries = time.monotonic(), _FIRST_PAUSE_SECONDS, 0
        while True:
            tries += 1
            try:
                status, answer = self._once(method, path, body)
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                seconds = time.monotonic() - start
                if seconds + pause > self.retry_seconds:
                    cause = one_line(error) or type(error).__name__
                    count = f"{tries} tries in {seconds:.0f} s"
                    line = f"{self.address}: no answer to {method} ({cause}) after {count}"
                    raise DeviceError(f"{line}; is `nas device serve` running there?") from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return self._accepted(status, answer, body)

    def _once(
        self, method: str, path: str, body: dict[str, Any] | Path | None
    ) -> tuple[int, dict[str, Any]]:
        """Send a request once; a `ValueError` says that the answer is not one of an agent."""
        host, port = host_and_port(self.address)
        connection = http.client.HTTPConnection(host, port, timeout=_REQUEST_SECONDS)
        headers = {"Authorization": f"Bearer {self.token}"}
        with contextlib.ExitStack() as opened:
            opened.callback(connection.close)
            sent: Any = None
            if isinstance(body, Path):
                try:
                    sent = opened.enter_context(body.open("rb"))
                    headers["Content-Length"] = str(body.stat().st_size)
                except OSError as error:
                    raise DeviceError(f"{body}: cannot be read ({error.strerror})") from error
            elif body is not None:
                sent = json.dumps(body).encode()
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            text = response.read(_ANSWER_BYTES)
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise ValueError(f"an answer that is no agent's: {one_line(text, 60)}")
        if response.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ValueError(f"status {response.status}")
        return response.status, answer

    def _accepted(
        self, status: int, answer: dict[str, Any], body: dict[str, Any] | Path | None
    ) -> dict[str, Any]:
        if status == HTTPStatus.OK:
            return answer
        line = one_line(answer.get("error", f"status {status}"))
        if status == HTTPStatus.CONFLICT:
            raise _BusyError(line)
        if status in (HTTPStatus.GONE, HTTPStatus.NOT_FOUND):
            raise _LeaseLostError(line)
        if status == HTTPStatus.UNAUTHORIZED:
            fix = "set HWNAS_TOKEN or device.token_file to the agent's"
            raise DeviceError(f"{self.address}: {line}; {fix}")
        about = f"{body}: " if isinstance(body, Path) else ""
        raise DeviceError(f"{self.address}: {about}{line}")
