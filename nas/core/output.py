"""What is printed, where standard output may be closed, full or of a narrow encoding.

A study of days must not end because its terminal has gone: what cannot be written is dropped, and
the command says at its end whether that matters.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO


class Output(io.TextIOBase):
    """A text stream whose writes never fail.

    Attributes:
        error: Why a write failed; nothing is written after the first one that did.
        needed: Whether a command has failed that could not write to it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to `stream`, which is `None` where Python was started with a closed one."""
        closed = stream is None or stream.closed
        self.error = OSError(errno.EBADF, os.strerror(errno.EBADF)) if closed else None
        self._stream = Path(os.devnull).open("w") if stream is None or closed else stream  # noqa: SIM115
        self.needed = True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self._stream.encoding

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write a text, with "?" in place of characters that the encoding lacks."""
        if self.error is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self.write(text.encode(error.encoding, "replace").decode(error.encoding))
            except OSError as error:
                self.error = error
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.error = error


def output_is_optional() -> None:
    """Say that a command leaves more than its output, and has not failed without it."""
    if isinstance(sys.stdout, Output):
        sys.stdout.needed = False


def tell(line: object) -> None:
    """Write a line to standard error, its control characters as Python writes them."""
    text = " ".join(str(line).splitlines())
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    sys.stderr.write(f"nas: {''.join(shown)}\n")
