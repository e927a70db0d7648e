"""Plain JSON values and hashes of them; files that are whole or absent; temporary folders."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import ConfigError, HwnasError
from nas.core.host import try_lock

_NEW_S = 2.0
"""Younger folders are never removed, in seconds: their process may not have locked them yet."""


def json_values(value: Any) -> Any:
    """Return `value` in plain JSON values.

    NumPy scalars and arrays become Python numbers and lists, tuples become lists, paths become
    text, and numbers that JSON does not have (NaN and the infinities) become `None`.

    Raises:
        TypeError: `value` holds something that JSON has no form for.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON: {value!r}")


def hashed(value: Any, digits: int) -> str:
    """Return hexadecimal digits that stand for `value`, the same in every process and release.

    Equal numbers count as equal whatever their type (2 and 2.0, 0.0 and -0.0, NumPy's and
    Python's), and so do lists, tuples and arrays of equal items. `True` is not 1. A dataclass
    counts as the name of its class and its fields.

    Args:
        value: Of what `json_values` takes, and of dataclasses.
        digits: How many, up to 64.

    Raises:
        TypeError: `value` holds something that JSON has no form for.
    """
    text = json.dumps(_canonical(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _canonical(value: Any) -> Any:
    if type(value) in (int, str):  # most values are, and other types take longer to tell apart
        return value
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(_canonical(key)): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **_canonical(fields)}
    return json_values(value)


def cache_path(name: str) -> Path:
    """Return a folder for what can be had again: `$XDG_CACHE_HOME` or `~/.cache`, and our name."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hwnas" / name


def check_folder(setting: str, folder: Path) -> None:
    """Check that a folder is there or can be made, before any work is done for it.

    Raises:
        ConfigError: Something else is in its way, or it may not be written.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        fix = f"{there} is {'not writable' if there.is_dir() else 'no folder'}"
        raise ConfigError(setting, str(folder), "a folder that can be written", fix)


def write_json_atomically(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record`, as `json_values`, to the file `path`, as `write_bytes_atomically` does.

    Raises:
        HwnasError: The file cannot be written.
        TypeError: `record` holds something that JSON has no form for.
    """
    text = json.dumps(json_values(record), indent=2) + "\n"
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write the file `path` in a folder that exists; a reader sees the old file or the new one.

    The content reaches the disk before it takes the old file's place, so that a power cut leaves
    one of the two as well.

    Raises:
        HwnasError: The file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        fix = "free disk space, or make its folder exist and writable"
        raise HwnasError(f"{path}: cannot be written ({error.strerror}); {fix}") from error


def remove_parts(folder: Path) -> None:
    """Remove the unfinished files that killed processes have left; nobody else may write here."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Windows cannot open folders, and needs no sync of them.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a temporary folder for the time of a `with` block.

    Its process keeps it locked, so that the next call finds and removes what killed processes of
    this host have left.

    Args:
        parent: Where it lies; `None` for the system's folder of temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    # Of a folder that hosts share, each sees its own locks only.
    prefix = f".hwnas-tmp-{socket.gethostname()}-"
    for folder in parent.iterdir():
        if folder.name.startswith(prefix):
            if_abandoned(folder, shutil.rmtree)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name, locked_folder(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """Keep a folder locked for the time of a `with` block; yields its file descriptor."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try_lock(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def if_abandoned(path: Path, remove: Callable[[Path], None]) -> None:
    """Call `remove` for a folder or file of this user if what has locked it has ended."""
    with contextlib.suppress(OSError):
        state = path.lstat()
        if state.st_uid != os.getuid() or time.time() - state.st_ctime < _NEW_S:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if try_lock(descriptor):
                remove(path)
        finally:
            os.close(descriptor)
