"""Jobs that do to a worker what candidates may do; a candidate's `arch_id` says what."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from nas.core.errors import CandidateFailure
from nas.core.trial import Candidate, Outcome


@dataclass(frozen=True)
class Behave:
    """Does what the candidate's `arch_id` names; `folder` receives a file per started job."""

    folder: Path

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        (self.folder / f"{candidate.number}.pid").write_text(str(os.getpid()))
        if candidate.arch_id == "heed_the_end":
            assert candidate.cut_after_s is not None
            time.sleep(candidate.cut_after_s)
            return Outcome(metrics={"error": 50.0}, cut_at=candidate.fidelity / 2)
        weights = getattr(self, f"_{candidate.arch_id}")(deadline)
        return Outcome(metrics={"error": 10.0 + candidate.number}, weights=weights)

    def _return(self, deadline: float) -> bytes:
        return b"weights"

    def _diverge(self, deadline: float) -> None:
        raise CandidateFailure("diverged", "the loss became nan in step 3")

    def _raise(self, deadline: float) -> None:
        raise ZeroDivisionError("division by zero\nsecond line")

    def _exit(self, deadline: float) -> None:
        os._exit(3)

    def _kill(self, deadline: float) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _no_memory(self, deadline: float) -> None:
        raise MemoryError("could not allocate 8 TB")

    def _no_gpu_memory(self, deadline: float) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    def _heed_the_limit(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            time.sleep(0.01)
        raise CandidateFailure("timeout", "stopped after 7 of 9 training steps")

    def _ignore_the_limit(self, deadline: float) -> None:
        time.sleep(1000)

    def _import_torch(self, deadline: float) -> None:
        import torch

        assert not torch.cuda.is_available()


@dataclass(frozen=True)
class Overlap:
    """Reports how many jobs run at the same time, by files in `folder`."""

    folder: Path
    seconds: float

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        mark = self.folder / str(candidate.number)
        mark.touch()
        most = 0
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            most = max(most, len(list(self.folder.iterdir())))
            time.sleep(0.01)
        mark.unlink()
        return Outcome(metrics={"error": most})


@dataclass(frozen=True)
class Wait:
    """Notes in `folder` that a candidate has begun, and takes some seconds."""

    folder: Path
    seconds: float

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        with (self.folder / candidate.arch_id).open("a") as file:
            file.write("x")
        time.sleep(self.seconds)
        return Outcome(metrics={"error": 10.0})
