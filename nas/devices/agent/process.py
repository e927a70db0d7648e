"""The process that does a job, as the agent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nas
from nas.core.files import write_json_atomically
from nas.devices.agent.protocol import GRACE_SECONDS, JobRequest, one_line
from nas.devices.agent.secret import VARIABLE

COMMAND = (sys.executable, "-m", "nas.devices.agent.job")
_TAIL_BYTES = 2000
_TAIL_LINES = 3


class JobProcess:
    """A running `nas.devices.agent.job`, in a process group of its own."""

    def __init__(self, request: JobRequest, files: Sequence[Path], folder: Path) -> None:
        """Start the process.

        Args:
            request: What to do.
            files: Those of the request, in its order.
            folder: Made for the job.

        Raises:
            OSError: It cannot be started.
            HwnasError: The request cannot be written.
        """
        folder.mkdir()
        for index, (file, path) in enumerate(zip(request.files, files, strict=True)):
            os.link(path, folder / file.name(index))
        write_json_atomically(folder / "request.json", request.to_dict())
        self._folder = folder
        with (folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                COMMAND,
                cwd=folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait for the end and return the answer; end the job by force when its time is over.

        Returns:
            What `run_job` returned, or the one line of an `error`.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            return {"error": f"the job took longer than its limit of {seconds:g} s and was ended"}
        try:
            answer = json.loads((self._folder / "answer.json").read_text("utf-8"))
        except (OSError, ValueError):
            answer = {"error": self._death()}
        self._put_away()
        return dict(answer)

    def end(self) -> None:
        """End the job and everything that it has started, gently at first."""
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            # Not waited for yet, so that the group's number is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._put_away()

    def _put_away(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _death(self) -> str:
        code = self._process.returncode
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        try:
            said = (self._folder / "stderr").read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            said = ""
        words = [line.strip() for line in said.splitlines() if line.strip()][-_TAIL_LINES:]
        last = one_line(" | ".join(words)) or "none"
        return f"the job's process died ({cause}); its last words: {last}"


def _environment() -> dict[str, str]:
    # The child imports this very package, and nothing from the folder of models it works in. The
    # token is no business of whatever runtime it loads.
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    root, inherited = str(Path(nas.__path__[0]).parent), kept.get("PYTHONPATH")
    path = os.pathsep.join([root, *([inherited] if inherited else [])])
    return kept | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
