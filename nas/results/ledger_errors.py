"""What a database says, turned into one line that a user can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from nas.core.errors import LedgerError

_KEPT = "what was appended before is kept"
_HINTS = {
    "disk is full": f"free disk space and start the same command again; {_KEPT}",
    "disk i/o error": f"free disk space or check the disk, then start again; {_KEPT}",
    "is locked": f"end the other process that writes to it and start again; {_KEPT}",
    "readonly": "make the file and its folder writable, or choose another one",
    "unable to open": "make its folder exist and be writable, or choose another one",
    "not a database": "it is no ledger or it is damaged; restore a copy or name a new study",
    "malformed": "it is damaged; restore a copy or name a new study",
    "no such table": "it is a database, but no ledger of hwnas",
    "no password supplied": "the study's files keep none: set PGPASSWORD, or use ~/.pgpass",
}
_URLS = "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"


def shown(url: str) -> str:
    """Return `url` as it may be printed: without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url)


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise `LedgerError` for whatever the database at `url` raises in the block."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise LedgerError(f"ledger {shown(url)}: {_explain(error)}") from error
    except ImportError as error:
        postgresql = url.startswith("postgresql")
        fix = "pip install psycopg2-binary" if postgresql else "install the database's driver"
        missing = one_line(error.__cause__ or error)
        raise LedgerError(f"ledger {shown(url)}: {missing}; {fix}") from error


def _explain(error: BaseException) -> str:
    cause: BaseException = error
    if isinstance(cause, StorageInternalError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, NoSuchModuleError | ArgumentError):
        return f"got a URL of an unknown kind, {_URLS}"
    if isinstance(cause, DBAPIError) and cause.orig is not None:
        cause = cause.orig
    text = one_line(cause)
    hints = [hint for words, hint in _HINTS.items() if words in text.lower()]
    return "; ".join([text, *hints[:1]])
