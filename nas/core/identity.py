"""Identities: hashes that depend on values alone, not on how they were written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nas.core.files import json_values


def hashed(value: Any, digits: int) -> str:
    """Return hexadecimal digits that stand for `value`, the same in every process and release.

    Equal numbers count as equal whatever their type (2 and 2.0, 0.0 and -0.0, NumPy's and
    Python's), and so do lists, tuples and arrays of equal items. `True` is not 1. A dataclass
    counts as the name of its class and its fields.

    Args:
        value: Of what `nas.core.files.json_values` takes, and of dataclasses.
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
