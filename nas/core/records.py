"""Reading JSON files; a damaged one is reported by its name, with how to go on."""

from __future__ import annotations

import contextlib
import json
import types
import typing
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nas.core.errors import HwnasError, LedgerError, one_line

Kinds: TypeAlias = Mapping[Any, type | types.UnionType]
"""Types of a record's entries, by their names."""

NUMBER = int | float

_RESTORE = "restore it from a copy"
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}
UNUSABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that decoding raises where the content is not as expected."""


def read_json(path: Path, kinds: Kinds | None = None, fix: str = _RESTORE) -> dict[str, Any]:
    """Return the record in the JSON file `path`, with the entries that `kinds` says.

    Raises:
        HwnasError: The file is missing, cannot be read or holds something else.
    """
    with decoding(path, fix):
        # Opening a pipe would wait for ever.
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")
        record: Any = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict):
            raise TypeError(f"got {_abridged(record)}, expected an object")
        check_kinds(record, kinds or {})
    return record


def check_kinds(record: Mapping[Any, Any], kinds: Kinds) -> None:
    """Check that a record has the entries that it must have.

    Raises:
        KeyError: It lacks an entry.
        TypeError: An entry is of another type.
    """
    for name, kind in kinds.items():
        # JSON's true and false are integers in Python.
        got = record[name]
        if not isinstance(got, kind) or (isinstance(got, bool) and kind is not bool):
            allowed = " or ".join(_NAMES[each] for each in typing.get_args(kind) or (kind,))
            raise TypeError(f"{name}: got {_abridged(got)}, expected {allowed}")


@contextlib.contextmanager
def decoding(path: Path, fix: str = _RESTORE) -> Iterator[None]:
    """Raise a `HwnasError` that names `path` where a `with` block cannot use the file's content.

    It also says `fix`: what to do about a file that is damaged.
    """
    try:
        yield
    except HwnasError as error:
        # Of this file, or of another one beside it; a relative folder may be in any text.
        where = path if path.parent.name in ("", "..") else path.parent
        if isinstance(error, LedgerError) or str(where) in str(error):
            raise
        raise HwnasError(f"{path}: {error}; {fix}") from error
    except KeyError as error:
        raise HwnasError(f"{path}: lacks {error}; {fix}") from error
    except OSError as error:
        raise HwnasError(f"{path}: cannot be read ({error.strerror or error}); {fix}") from error
    except json.JSONDecodeError as error:
        raise HwnasError(f"{path}: is not JSON ({error}); {fix}") from error
    except UNUSABLE as error:
        raise HwnasError(f"{path}: is damaged ({one_line(error)}); {fix}") from error


def _abridged(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 20 else f"{text[:20]}..."
