"""Who has the board: one client at a time, with its files and jobs."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from nas.core.errors import HwnasError
from nas.devices.agent.process import JobProcess
from nas.devices.agent.protocol import CHUNK_BYTES, JobRequest, Limits, Refusal, new_id

_LONGEST_WAIT_SECONDS = 10.0


@dataclass
class _Job:
    request: JobRequest
    process: JobProcess
    answer: dict[str, Any] | None = None


@dataclass
class _Lease:
    id: str
    holder: str
    folder: Path
    since: float
    heard: float
    bytes: int = 0
    ending: bool = False
    files: set[str] = field(default_factory=set)
    jobs: dict[str, _Job] = field(default_factory=dict)


class Leases:
    """The lease of a board, its files and its jobs; every method may be called by any thread."""

    def __init__(self, limits: Limits, folder: Path, log: Callable[[str], None]) -> None:
        """Begin without a lease.

        Args:
            limits: What is allowed.
            folder: Exists; whatever a lease brings lies in it, and only while it lasts.
            log: Told of what happens.
        """
        self.limits = limits
        self._folder = folder
        self._log = log
        self._changed = threading.Condition()
        self._lease: _Lease | None = None
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def acquire(self, lease_id: str, holder: str) -> None:
        """Give the board to a client that calls itself `holder`.

        Raises:
            Refusal: Somebody else has it.
        """
        now = time.monotonic()
        with self._changed:
            lease = self._lease
            if lease is not None and (lease.id != lease_id or lease.ending):
                line = f"{lease.holder} has been measuring for {now - lease.since:.0f} s"
                raise Refusal(HTTPStatus.CONFLICT, line)
            if lease is not None:
                lease.heard = now
                return
            folder = self._folder / lease_id
            folder.mkdir()
            self._lease = _Lease(lease_id, holder, folder, since=now, heard=now)
        self._log(f"{holder} takes the board")

    def release(self, lease_id: str) -> None:
        """Take the board back from its client.

        Raises:
            Refusal: It is not the client's.
        """
        self._end(self._current(lease_id), "gives the board back", keep=False)

    def files(self, lease_id: str) -> list[str]:
        """Return the SHA-256 of every file of a lease.

        Raises:
            Refusal: It is no lease.
        """
        lease = self._current(lease_id)
        with self._changed:
            return sorted(lease.files)

    def receive(self, lease_id: str, sha256: str, body: BinaryIO, length: int) -> None:
        """Keep a file that a client sends.

        Raises:
            Refusal: It is no lease, the file is too large or another one, or the disk is full.
        """
        limits, lease = self.limits, self._current(lease_id)
        if length > limits.model_mb * 1e6:
            line = f"the file has {length / 1e6:.1f} MB, expected {limits.model_mb:g} MB at most"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line)
        with self._changed:
            if lease.bytes + length > limits.folder_mb * 1e6:
                line = f"all files together exceed {limits.folder_mb:g} MB; measure fewer at a time"
                raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, line)
            lease.bytes += length
        part, path = lease.folder / f"{new_id()}.part", lease.folder / sha256
        added = False
        try:
            self._write(lease, part, body, length, sha256)
            with self._changed:
                part.replace(path)
                added = sha256 not in lease.files
                lease.files.add(sha256)
        except (FileNotFoundError, NotADirectoryError):
            raise _gone() from None  # the lease ended meanwhile, with its folder
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            line = f"the file cannot be kept ({error.strerror}); free space on the board"
            raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, line) from error
        finally:
            part.unlink(missing_ok=True)
            with self._changed:
                lease.bytes -= 0 if added else length

    def start(self, lease_id: str, job_id: str, request: JobRequest) -> None:
        """Start a job, unless it was started before.

        Raises:
            Refusal: It is no lease, another job is running, or a file is missing.
        """
        lease = self._current(lease_id)
        with self._changed:
            if lease.ending:
                raise _gone()
            known = lease.jobs.get(job_id)
            if known is not None:
                if known.request != request:
                    raise Refusal(HTTPStatus.BAD_REQUEST, f"job {job_id} is another one")
                return
            if any(job.answer is None for job in lease.jobs.values()):
                raise Refusal(HTTPStatus.BAD_REQUEST, "another job of this lease is running")
            for file in request.files:
                if file.sha256 not in lease.files:
                    raise Refusal(HTTPStatus.BAD_REQUEST, f"file {file.sha256} is not uploaded")
            paths = [lease.folder / file.sha256 for file in request.files]
            try:
                process = JobProcess(request, paths, lease.folder / job_id)
            except (OSError, HwnasError) as error:
                line = f"the job cannot be started ({error})"
                raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, line) from error
            job = lease.jobs[job_id] = _Job(request, process)
        what = f"has {len(request.files)} networks measured" if paths else "asks what is here"
        self._log(f"{lease.holder} {what}")
        threading.Thread(target=self._watch, args=[lease, job], daemon=True).start()

    def state(self, job_id: str) -> dict[str, Any]:
        """Wait a while for a job; return its `answer`, or `null` while it runs.

        Raises:
            Refusal: There is no such job.
        """
        seconds = min(_LONGEST_WAIT_SECONDS, self.limits.lease_seconds / 3)
        with self._changed:
            if job_id in self._kept:
                return {"answer": self._kept[job_id][1]}
            lease = self._lease
            if lease is None or job_id not in lease.jobs:
                raise Refusal(HTTPStatus.NOT_FOUND, f"there is no job {job_id}")
            job = lease.jobs[job_id]
            lease.heard = time.monotonic()
            self._changed.wait_for(lambda: job.answer is not None, seconds)
            if lease.ending:
                raise _gone()
            lease.heard = time.monotonic()
            return {"answer": job.answer}

    def expire(self) -> None:
        """End what nobody has asked about for too long."""
        now = time.monotonic()
        with self._changed:
            lease = self._lease
            kept = self._kept.items()
            self._kept = {i: (t, a) for i, (t, a) in kept if now - t < self.limits.result_seconds}
            silent = lease is not None and now - lease.heard > self.limits.lease_seconds
        if lease is not None and silent:
            self._end(lease, "has gone silent and loses the board", keep=True)

    def close(self) -> None:
        """End everything."""
        with self._changed:
            lease = self._lease
        if lease is not None:
            self._end(lease, "loses the board, which stops", keep=False)

    def _current(self, lease_id: str) -> _Lease:
        with self._changed:
            lease = self._lease
            if lease is None or lease.id != lease_id or lease.ending:
                raise _gone()
            lease.heard = time.monotonic()
            return lease

    def _write(self, lease: _Lease, part: Path, body: BinaryIO, length: int, sha256: str) -> None:
        found, left = hashlib.sha256(), length
        with part.open("xb") as file:
            while left:
                chunk = body.read(min(left, CHUNK_BYTES))
                if not chunk:
                    line = f"the file ends {left} bytes early"
                    raise Refusal(HTTPStatus.BAD_REQUEST, line)
                left -= len(chunk)
                found.update(chunk)
                file.write(chunk)
                lease.heard = time.monotonic()
        if found.hexdigest() != sha256:
            line = f"the file's SHA-256 is {found.hexdigest()}, expected {sha256}; send it again"
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, line)

    def _watch(self, lease: _Lease, job: _Job) -> None:
        started = time.monotonic()
        answer = job.process.wait(min(job.request.limit_seconds, self.limits.job_seconds))
        with self._changed:
            job.answer = answer
            self._changed.notify_all()
        how = answer.get("error", "done")
        self._log(f"job of {lease.holder} after {time.monotonic() - started:.1f} s: {how}")

    def _end(self, lease: _Lease, why: str, *, keep: bool) -> None:
        """End a lease; the board is free when nothing of it runs or lies there any more."""
        with self._changed:
            if lease.ending:
                self._changed.wait_for(lambda: self._lease is not lease)
                return
            lease.ending = True
            done = {i: j.answer for i, j in lease.jobs.items() if j.answer is not None}
        for job_id, job in lease.jobs.items():
            if job_id not in done:
                job.process.end()
        shutil.rmtree(lease.folder, ignore_errors=True)
        now = time.monotonic()
        with self._changed:
            if keep:
                self._kept |= {job_id: (now, answer) for job_id, answer in done.items()}
            self._lease = None
            self._changed.notify_all()
        self._log(f"{lease.holder} {why}")


def _gone() -> Refusal:
    return Refusal(HTTPStatus.GONE, "there is no such lease")
