"""Errors on one line."""

from __future__ import annotations


def one_line(text: object, most: int = 300) -> str:
    """Return a text, such as that of an error, on one line of at most `most` characters.

    An exception without a text is called by its type.
    """
    line = " ".join(str(text).split())
    if not line and isinstance(text, BaseException):
        return type(text).__name__
    return line if len(line) <= most else f"{line[:most]} ..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; what follows there is often its SQL or a help."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
