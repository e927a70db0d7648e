"""The end of a process: SIGTERM and Ctrl-C raise an exception, so that `finally` blocks run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Terminated(SystemExit):
    """A signal has told the process to end.

    Attributes:
        status: Exit status, the shell's: 143 for SIGTERM.
    """

    def __init__(self, signal_number: int) -> None:
        self.status = 128 + signal_number
        super().__init__(self.status)


def end_orderly() -> None:
    """Let SIGTERM and SIGHUP raise `Terminated` where they would end the process at once."""
    for number in INTERRUPTS if _in_main_thread() else ():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Restore the handlers that a library replaces in a `with` block, at its end."""
    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    try:
        yield
    finally:
        if _in_main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP during a `with` block, such as one that clears up."""
    with kept_handlers():
        ignore_interrupts()
        yield


def ignore_interrupts() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP from now on."""
    for number in INTERRUPTS if _in_main_thread() else ():
        # Unlike SIG_IGN, processes that are started meanwhile do not inherit it.
        signal.signal(number, lambda *_: None)


def _terminate(number: int, frame: FrameType | None) -> None:
    del frame
    raise Terminated(number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
