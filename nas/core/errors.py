"""Errors that a user can act on, each saying what was wrong, got, expected and how to fix it.

Two kinds are kept apart. A `HwnasError` means that the program, its configuration or its
surroundings are wrong: the run stops at once and the command line prints one line. A
`CandidateFailure` means that one architecture could not be evaluated: it becomes a failed trial
and the search goes on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that control a terminal, end a line, turn the text direction, or have no encoding."""


class HwnasError(Exception):
    """Base of every error that ends a run with one clear line."""

    def __str__(self) -> str:
        """Return the message on one line, with control characters escaped."""
        return printable(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the composed message: the constructors of subclasses take other arguments."""
        return _with_line, (type(self), str(self)), self.__dict__


def _with_line(cls: type[HwnasError], line: str) -> HwnasError:
    error = cls.__new__(cls)
    Exception.__init__(error, line)
    return error


class ConfigError(HwnasError):
    """A setting has a value that cannot be used."""

    def __init__(self, argument: str, got: object, expected: str, fix: str = "") -> None:
        """Compose the line from its parts.

        Args:
            argument: The setting, named as the user wrote it (`search.evaluations`).
            got: The value that was given.
            expected: What would have been accepted.
            fix: What to do about it, where `expected` does not already say so.
        """
        self.argument = argument
        line = f"{argument}: got {got!r}, expected {expected}"
        super().__init__(f"{line}; {fix}" if fix else line)


class UnknownNameError(ConfigError):
    """A name is unknown; the message lists the valid ones and suggests the most similar."""

    def __init__(
        self,
        argument: str,
        name: object,
        valid: Iterable[str],
        among: str = "one of",
        *,
        got: object = ...,
    ) -> None:
        """Compose the line from its parts.

        Args:
            argument: The setting, or the kind of what is named.
            name: The unknown name.
            valid: The names that there are.
            among: What these are.
            got: The value that was given, where that is not the name itself.
        """
        names = sorted(valid)
        expected = f"{among} {', '.join(names) or 'none'}"
        super().__init__(argument, name if got is ... else got, expected, did_you_mean(name, names))


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Return "did you mean NAME?" with the most similar valid name; empty if none is similar."""
    similar = difflib.get_close_matches(str(name), list(valid), n=1)
    return f"did you mean {similar[0]!r}?" if similar else ""


class GenotypeError(HwnasError):
    """A genotype does not belong to its search space."""


class DataError(HwnasError):
    """A data set is missing, unreadable or not what it says it is."""


class DeviceError(HwnasError):
    """A network could not be run or timed on a device."""


class HostBusyError(HwnasError):
    """Another process has kept the host for too long."""


class LedgerError(HwnasError):
    """The durable record of a study could not be opened, read or written."""


class ExportError(HwnasError):
    """An exported network does not equal the network that it was exported from."""


class NoFeasibleArchitectureError(HwnasError):
    """No architecture that was sampled meets the constraints."""


class CandidateFailure(Exception):  # noqa: N818 - a failed trial is an outcome, not an error
    """One candidate could not be evaluated; its cause goes into the ledger.

    Attributes:
        cause: One of `CAUSES`.
    """

    CAUSES = ("diverged", "timeout", "out_of_memory", "worker_died", "crashed")

    def __init__(self, cause: str, detail: str) -> None:
        if cause not in self.CAUSES:
            raise ValueError(f"cause {cause!r} is not one of {self.CAUSES}")
        self.cause = cause
        self.detail = detail
        super().__init__(cause, detail)

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}"


def printable(text: object) -> str:
    """Return a text on one line, with control characters escaped as in Python.

    Names and texts of files may come from anybody.
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def one_line(text: object, most: int = 300) -> str:
    """Return a text, such as that of an error, on one line of at most `most` characters.

    An exception without a text is called by its type.
    """
    line = " ".join(str(text).split())
    if not line and isinstance(text, BaseException):
        return type(text).__name__
    return line if len(line) <= most else f"{line[:most]} ..."


def last_lines(text: str, most: int = 3) -> str:
    """Return the last lines of what a program has written, on one line; empty if it has not."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-most:])


def counted(number: float, noun: str) -> str:
    """Return a number with what it counts, in the plural unless it is 1."""
    return f"{number:.10g} {noun}{'' if number == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; what follows there is often its SQL or a help."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
