"""What a client and an agent say to each other: HTTP, JSON and the bytes of models.

| request | what it does |
| --- | --- |
| `PUT /leases/LEASE` | takes the board, or says who has it |
| `DELETE /leases/LEASE` | gives the board back; its files and jobs are gone |
| `GET /leases/LEASE/files` | lists the files that are there |
| `PUT /leases/LEASE/files/SHA256` | uploads a file |
| `PUT /leases/LEASE/jobs/JOB` | starts a job |
| `GET /jobs/JOB` | waits a while for a job and tells its state |

The client makes up `LEASE` and `JOB`, so each of these may be sent again when its answer was lost:
the second time it changes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from nas.core.errors import ConfigError

ID = "[0-9a-f]{32}"
SHA256 = "[0-9a-f]{64}"
CHUNK_BYTES = 1 << 20
JSON_BYTES = 4 << 20
"""Most bytes of a request that is JSON."""

GRACE_SECONDS = 10.0
"""What a job that is told to end has to put its things away."""

_SUFFIX = re.compile(r"(\.[a-z0-9]{1,16})?")
_MOST_FILES = 10_000
_MOST_PIXELS = 1 << 16
_PLACES = 3


class Refusal(Exception):  # noqa: N818 - an answer, not an error of the agent
    """A request that is answered with a status and one line.

    Attributes:
        status: Of HTTP.
        line: What is wrong.
    """

    def __init__(self, status: HTTPStatus, line: str) -> None:
        """Record the status and the line."""
        self.status = status
        self.line = line
        super().__init__(status, line)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an agent allows.

    Attributes:
        model_mb: Megabytes (10^6 bytes) of one file.
        folder_mb: Megabytes of all files of a lease.
        job_seconds: Of one job, after which it is ended.
        lease_seconds: Without a word from its client after which a lease ends.
        result_seconds: For which the result of a lease that ended so is kept.
    """

    model_mb: float = 500.0
    folder_mb: float = 4000.0
    job_seconds: float = 3600.0
    lease_seconds: float = 60.0
    result_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is not above 0.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"--{field.name.replace('_', '-')}", value, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A file as a job names it.

    Attributes:
        sha256: Of its bytes.
        suffix: Of its name, by which a runtime may tell its form.
    """

    sha256: str
    suffix: str

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Describe a file."""
        return cls(sha256=digest(path), suffix=path.suffix.lower())

    def name(self, index: int) -> str:
        """Return the name of the file in the folder of a job, by its place in the request."""
        return f"{index}{self.suffix}"


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a job measures; without files it only tells the device's identity.

    Attributes:
        device: Name and fields of a device of the board.
        files: The networks.
        input_shape: `(channels, height, width)`.
        memory: Whether to measure peak memory.
        seed: Of the order in which networks are shuffled.
        seconds_per_model: Most seconds of timed inference of each; `None` for the device's own.
        limit_seconds: After which the job is ended.
    """

    device: dict[str, Any]
    files: tuple[ModelFile, ...] = ()
    input_shape: tuple[int, int, int] = (1, 1, 1)
    memory: bool = False
    seed: int = 0
    seconds_per_model: float | None = None
    limit_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> JobRequest:
        """Rebuild a request from `to_dict`.

        Raises:
            Refusal: It is not one.
        """
        fields = _exactly(record, cls, "job")
        _check("device", fields["device"], isinstance(fields["device"], Mapping), "settings")
        files = fields["files"]
        good = isinstance(files, list | tuple) and len(files) <= _MOST_FILES
        _check("files", files, good, f"a list of at most {_MOST_FILES}")
        shape = fields["input_shape"]
        good = isinstance(shape, list | tuple) and len(shape) == _PLACES
        good = good and all(_whole(size) and 1 <= size <= _MOST_PIXELS for size in shape)
        _check("input_shape", shape, good, f"three whole numbers of 1 to {_MOST_PIXELS}")
        _check("memory", fields["memory"], isinstance(fields["memory"], bool), "true or false")
        good = _whole(fields["seed"]) and 0 <= fields["seed"] < 1 << 63
        _check("seed", fields["seed"], good, "a whole number, 0 or more")
        seconds = fields["seconds_per_model"]
        good = seconds is None or _positive(seconds)
        _check("seconds_per_model", seconds, good, "null or a number above 0")
        limit = fields["limit_seconds"]
        _check("limit_seconds", limit, _positive(limit), "a number above 0")
        return cls(
            **fields | {"files": tuple(_model_file(f) for f in files), "input_shape": tuple(shape)}
        )


def new_id() -> str:
    """Return an identifier that nobody else can guess."""
    return secrets.token_hex(16)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_line(text: object, most: int = 500) -> str:
    """Return a text as one printable line of at most `most` characters."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line)[:most]


def _model_file(record: Any) -> ModelFile:
    fields = _exactly(record, ModelFile, "files")
    for name, pattern in (("sha256", re.compile(SHA256)), ("suffix", _SUFFIX)):
        value = fields[name]
        good = isinstance(value, str) and pattern.fullmatch(value) is not None
        _check(f"files.{name}", value, good, f"text of the form {pattern.pattern}")
    return ModelFile(**fields)


def _exactly(record: Any, cls: type, what: str) -> dict[str, Any]:
    names = sorted(f.name for f in dataclasses.fields(cls))
    good = isinstance(record, Mapping) and sorted(record) == names
    _check(what, record, good, "an object with " + ", ".join(names))
    return dict(record)


def _check(what: str, got: Any, good: bool, expected: str) -> None:
    if not good:
        shown = one_line(repr(got), 60)
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{what}: got {shown}, expected {expected}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf
