"""Standard output and error that may be closed, full, or of an encoding that lacks characters.

A study of days must not end because its terminal has gone: what cannot be written is dropped, and
the command says at its end whether that matters.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from nas.core.errors import printable


class Output(io.TextIOBase):
    """A text stream whose writes never fail.

    Attributes:
        error: Why a write failed; nothing is written after the first one that did.
        needed: Whether the command fails if it cannot write to the stream.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to `stream`, which is `None` where Python was started with a closed one."""
        # An object that stands for standard output may have no more than `write`.
        closed = stream is None or getattr(stream, "closed", False)
        self.error = OSError(errno.EBADF, os.strerror(errno.EBADF)) if closed else None
        self._stream = Path(os.devnull).open("w") if stream is None or closed else stream  # noqa: SIM115
        self.needed = True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def buffer(self) -> BinaryIO:
        """Stream of bytes below the text, whose writes never fail either."""
        return cast("BinaryIO", _Bytes(self))

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        open_terminal = hasattr(self._stream, "isatty") and not self._stream.closed
        return open_terminal and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write a text, with "?" in place of characters that the encoding lacks."""
        try:
            self._unless_failed(self._stream.write, text)
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def write_bytes(self, content: bytes) -> None:
        """Write bytes behind the texts so far; dropped where the stream takes only texts."""
        self.flush()
        if hasattr(self._stream, "buffer"):
            self._unless_failed(self._stream.buffer.write, content)

    def flush(self) -> None:
        self._unless_failed(getattr(self._stream, "flush", lambda: None))

    def _unless_failed(self, do: Callable[..., object], *arguments: object) -> None:
        if self.error is None:
            try:
                do(*arguments)
            except OSError as error:
                self.error = error


class _Bytes(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._output.fileno()

    def write(self, content: Any) -> int:
        self._output.write_bytes(bytes(content))
        return memoryview(content).nbytes

    def flush(self) -> None:
        self._output.flush()


def output_is_optional() -> None:
    """Declare that the command has other results, so that it does not fail without its output."""
    if isinstance(sys.stdout, Output):
        sys.stdout.needed = False


def tell(line: object) -> None:
    """Write a line to standard error; see `printable`."""
    sys.stderr.write(f"nas: {printable(' '.join(str(line).splitlines()))}\n")
