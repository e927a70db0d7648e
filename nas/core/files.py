"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import HwnasError


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


def write_json_atomically(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` as the JSON file `path`, as `write_bytes_atomically` does.

    Args:
        path: In a folder that exists.
        record: Turned into plain values by `json_values`.

    Raises:
        HwnasError: The file cannot be written.
        TypeError: `record` holds something that JSON has no form for.
    """
    text = json.dumps(json_values(record), indent=2) + "\n"
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write the file `path`; a reader sees the old file or the new one.

    The content reaches the disk before it takes the old file's place, so that a power cut leaves
    one of the two as well.

    Args:
        path: In a folder that exists.
        content: Of the file.

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
        part.unlink(missing_ok=True)
        fix = "free disk space, or make its folder exist and writable"
        raise HwnasError(f"{path}: cannot be written ({error.strerror}); {fix}") from error


def _sync_folder(folder: Path) -> None:
    # Windows cannot open folders, and needs no sync of them.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
