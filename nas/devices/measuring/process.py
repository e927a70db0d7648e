"""The other end of the measuring process: starts it, asks it, and never leaves it behind.

The process runs on this machine or, where a command such as `ssh` starts it, on another one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.core.errors import DeviceError, last_lines
from nas.core.host import child_environment

WORKER = "nas.devices.measuring.worker"
COMMAND = (sys.executable, "-m", WORKER)
_TAIL_BYTES = 2000
_GRACE_SECONDS = 5.0
_PART_BYTES = 1 << 20
_logger = logging.getLogger(__name__)

_MISSING = re.compile(r"No module named '?(\w+)")


class MeasuringProcess:
    """A running `nas.devices.measuring.worker`; a context manager."""

    def __init__(
        self,
        *,
        timeout_seconds: float,
        command: Sequence[str] = COMMAND,
        place: str | None = None,
    ) -> None:
        """Start the process.

        Args:
            timeout_seconds: How long an answer may take beyond the work that was asked for.
            command: The program to run.
            place: The other machine on which the process runs, for messages; `None` for this one.

        Raises:
            DeviceError: It cannot be started.
        """
        self._timeout_seconds, self._place = timeout_seconds, place
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=child_environment(),
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._stderr.close()
            line = f"measuring process cannot be started ({error})"
            raise DeviceError(self._line(line)) from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        # Pipes cannot be waited for with a time limit on every platform; a thread's queue can.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> MeasuringProcess:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def ask(
        self, op: str, *, about: str, work_seconds: float = 0.0, **arguments: Any
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; notices that come before it are logged.

        Args:
            op: The operation.
            about: What it is about, for messages: a file, mostly.
            work_seconds: How long the work itself takes, or at most passes until its next notice;
                the time limit is added to it.
            **arguments: The operation's arguments, JSON values.

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
        answer = self._answer(op, about, self._timeout_seconds + work_seconds)
        while "notice" in answer:
            _logger.warning("%s", self._line(str(answer["notice"])))
            answer = self._answer(op, about, self._timeout_seconds + work_seconds)
        if "error" in answer:
            raise DeviceError(self._line(f"{about}: {answer['error']}"))
        return answer

    def _answer(self, op: str, about: str, limit: float) -> dict[str, Any]:
        """Return the next line of answer, for which at most `limit` seconds are waited."""
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            problem = f"gave no answer to {op!r} within {limit:g} s and was ended"
            problem += " (if it is only slow, raise device.timeout_seconds)"
            raise self._failure(about, problem) from None
        if line is None:
            raise self._death(op, about)
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            problem = f"answered {line.strip()[:80]!r} to {op!r}, expected a JSON object"
            raise self._failure(about, problem)
        return answer

    def send(self, path: Path, name: str) -> str:
        """Bring a file, or a folder of files, to where the process runs.

        Args:
            path: Here.
            name: There, in the folder of the process; the suffix is kept. What had that name
                before is replaced.

        Returns:
            The path there; on this machine it is the same.

        Raises:
            DeviceError: It cannot be read, or the process has failed.
        """
        if self._place is None:
            return str(path)
        name, folder = name + path.suffix, ""
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        for file in files:
            target = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
            try:
                content = file.read_bytes()
            except OSError as error:
                raise DeviceError(f"{file}: cannot be read ({error.strerror})") from error
            for start in range(0, max(len(content), 1), _PART_BYTES):
                data = base64.b64encode(content[start : start + _PART_BYTES]).decode()
                folder = self.ask(
                    "receive", about=str(path), name=target, data=data, first=start == 0
                )["folder"]
        return f"{folder}/{name}"

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
        # A process that a library forked may hold the output; closing would wait for the reader.
        if not self._reader.is_alive():
            self._process.stdout.close()
        self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _death(self, op: str, about: str) -> DeviceError:
        self._process.wait()
        code = self._process.returncode
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        missing = _MISSING.search(self._last_words())
        if self._place is not None and missing:
            line = f"Python there has no module {missing[1]!r}; run on that machine: "
            return DeviceError(self._line(line + "python3 -m pip install 'hwnas[agent]'"))
        return self._failure(about, f"died during {op!r} ({cause})")

    def _failure(self, about: str, problem: str) -> DeviceError:
        self._process.kill()
        self._process.wait()
        said = self._last_words()
        line = f"{about}: measuring process {problem}; its last words: {said}"
        return DeviceError(self._line(line))

    def _line(self, line: str) -> str:
        return line if self._place is None else f"{self._place}: {line}"

    def _last_words(self) -> str:
        self._stderr.seek(0)
        tail = self._stderr.read()[-_TAIL_BYTES:].decode("utf-8", errors="replace")
        return last_lines(tail) or "none"
