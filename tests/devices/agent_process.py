"""An agent in a process of its own, as a board runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import nas.devices
from nas.core.measurement import Device

TOKEN = "a-token-of-the-tests-0123456789"
PATIENCE_S = 30.0
FAST = {
    "min_rounds": 36,
    "min_seconds": 0.0,
    "warmup_seconds": 0.01,
    "block_ms": 0.5,
    "relative_ci": 10.0,
}
LONG = FAST | {"min_rounds": 1_000_000}
"""Of a job that somebody has to end."""


class AgentProcess:
    """A running `nas device serve`; a context manager."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        self._arguments = arguments
        self._log = folder / "agent.log"
        self._token = folder / "token"
        self._token.write_text(f"{TOKEN}\n")
        self._temporary = folder / "temporary"
        self._temporary.mkdir()
        self.start(port)

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def start(self, port: int) -> None:
        command = [sys.executable, "-m", "nas.cli.main", "device", "serve", "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--token-file", str(self._token), *self._arguments],
            stdout=subprocess.PIPE,
            stderr=self._log.open("a"),
            text=True,
            env={k: v for k, v in os.environ.items() if k != "HWNAS_TOKEN"}
            | {"TMPDIR": str(self._temporary)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving at 127.0.0.1:"), (line, self.log())
        self.port = int(line.rpartition(":")[2])
        self.address = f"127.0.0.1:{self.port}"

    def kill(self) -> list[psutil.Process]:
        """Kill the agent, and it alone; return what it had started."""
        children = self.children()
        self.process.kill()
        self.process.wait(PATIENCE_S)
        return children

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def log(self) -> str:
        return self._log.read_text()

    @property
    def folder(self) -> Path:
        return self._temporary / f"hwnas-agent-{os.getuid()}-{self.port}"

    def temporary(self) -> list[str]:
        """Return what its jobs have left among the temporary files, the host's lock left out."""
        # A runtime may keep a file of its own there: ONNX Runtime does.
        names = (path.name for path in self._temporary.glob("hwnas-*") if path != self.folder)
        return sorted(name for name in names if not name.startswith("hwnas-lease"))

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*"))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def until_logged(self, line: str, times: int = 1) -> None:
        self.until(lambda: self.log().count(line) >= times)

    def remote(self, target: dict[str, Any] | None = None, **fields: Any) -> Device:
        settings = {"address": self.address, "token_file": str(self._token), "retry_seconds": 20.0}
        target = {"name": "cpu"} | FAST | (target or {})
        return nas.devices.get("remote", target=target, **(settings | fields))
