"""The other end of the measuring process: starts it, asks it, and never leaves it behind."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import nas
from nas.core.errors import DeviceError

COMMAND = (sys.executable, "-m", "nas.devices.measuring.worker")
_TAIL_BYTES = 2000
_TAIL_LINES = 3
_GRACE_SECONDS = 5.0


class MeasuringProcess:
    """A running `nas.devices.measuring.worker`; a context manager."""

    def __init__(self, *, timeout_seconds: float, command: Sequence[str] = COMMAND) -> None:
        """Start the process.

        Args:
            timeout_seconds: How long an answer may take beyond the work that was asked for.
            command: The program to run.

        Raises:
            DeviceError: It cannot be started.
        """
        self._timeout_seconds = timeout_seconds
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(),
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._stderr.close()
            raise DeviceError(f"measuring process cannot be started ({error})") from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        # Pipes cannot be waited for with a time limit on every platform; a thread's queue can.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> MeasuringProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, op: str, *, about: str, work_seconds: float = 0.0, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Args:
            op: The operation.
            about: What it is about, for messages: a file, mostly.
            work_seconds: How long the work itself takes, which the time limit is added to.
            **arguments: The operation's arguments, JSON values.

        Returns:
            The answer, a dictionary.

        Raises:
            DeviceError: The process died, did not answer in time, answered garbage, or found
                something wrong with a model.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death(op, about) from None
        limit = self._timeout_seconds + work_seconds
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            problem = f"gave no answer to {op!r} within {limit:g} s and was ended"
            raise self._failure(about, problem) from None
        if line is None:
            raise self._death(op, about)
        answer = self._parse(line, op, about)
        if "error" in answer:
            raise DeviceError(f"{about}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process, by force where it does not end by itself, and reap it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_GRACE_SECONDS)
        self._process.stdout.close()
        self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _parse(self, line: str, op: str, about: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            problem = f"answered {line.strip()[:80]!r} to {op!r}, expected a JSON object"
            raise self._failure(about, problem)
        return answer

    def _death(self, op: str, about: str) -> DeviceError:
        self._process.wait()
        code = self._process.returncode
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return self._failure(about, f"died during {op!r} ({cause})")

    def _failure(self, about: str, problem: str) -> DeviceError:
        self._process.kill()
        self._process.wait()
        said = self._last_words()
        return DeviceError(f"{about}: measuring process {problem}; its last words: {said}")

    def _last_words(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        lines = self._stderr.read().decode("utf-8", errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return " | ".join(words[-_TAIL_LINES:]) or "none"


def _environment() -> dict[str, str]:
    # The child must import this very package, wherever the parent found it.
    root = str(Path(nas.__path__[0]).parent)
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([root, *([inherited] if inherited else [])])}
