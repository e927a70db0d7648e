"""The database of a ledger: its URL, its transactions, one line for whatever it reports.

SQLAlchemy, which connects to servers, loads when it is used: it takes longer to load than a ledger
in a file takes to read.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from nas.core.errors import LedgerError, first_line, one_line
from nas.core.records import UNUSABLE

if TYPE_CHECKING:
    import sqlalchemy

LOCK_TIMEOUT_SECONDS = 20

Rows = Callable[..., list[tuple[Any, ...]]]
"""Takes a query with `?` for its parameters, and these; returns all rows, none of an insertion."""

_KEPT = "what was appended before is kept"
_AGAIN = f"start the same command again; {_KEPT}"
_AWAY = f"let the server run and {_AGAIN}"
_HINTS = {
    "disk is full": f"free disk space and start the same command again; {_KEPT}",
    "disk i/o error": f"free disk space or check the disk, then start again; {_KEPT}",
    "is locked": f"close what holds it (a search, a database browser, a backup), then {_AGAIN}",
    "readonly": "make the file and its folder writable, or choose another one",
    "unable to open": "make its folder exist and be writable, or choose another one",
    "not a database": "it is no ledger or it is damaged; restore a copy or name a new study",
    "malformed": "it is damaged; restore a copy or name a new study",
    "no such table": "it is a database, but no ledger of hwnas",
    "connection refused": _AWAY,
    "closed the connection": _AWAY,
    "terminating connection": _AWAY,
    "shutting down": _AWAY,
    "starting up": _AWAY,
    "no password supplied": "the study's files keep none: set PGPASSWORD, or use ~/.pgpass",
}
_URLS = "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""Ends a journal that names another file, which SQLite deletes when it undoes the journal."""

_AWAY_CODES = ("08", "57P", "40001", "40P01", "53300")
"""Of PostgreSQL: lost connections, those that the server ends, conflicts with others, too many."""

_RAISED_BY = ("sqlite3", "sqlalchemy", "psycopg2", "optuna")


def sqlite_url(path: Path) -> str:
    """Return the URL of a ledger in the SQLite file `path`, whatever characters that holds."""
    return f"sqlite:///{quote(path.absolute().as_posix(), safe=' +/')}"


def sqlite_file(url: str) -> Path | None:
    """Return the file of a ledger's URL; `None` where a server holds the ledger."""
    kind, _, place = url.partition(":///")
    if kind.partition("+")[0] != "sqlite" or not place:
        return None
    return Path(unquote(place.partition("?")[0])).absolute()


def engine_url(url: str) -> sqlalchemy.URL:
    """Return `url` for SQLAlchemy, a plain `postgresql://` with the driver that we depend on.

    Raises:
        ArgumentError: It is the URL of neither SQLite nor PostgreSQL.
    """
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise sqlalchemy.exc.ArgumentError(url)
    plain = parsed.drivername == "postgresql"
    return parsed.set(drivername="postgresql+psycopg2") if plain else parsed


def engine_settings(url: sqlalchemy.URL) -> dict[str, Any]:
    """Return how SQLAlchemy connects to a ledger: no connection stays open between calls."""
    import sqlalchemy

    # A candidate may train for hours, in which a server drops an idle connection. One that is
    # closed needs no rollback before, which fails where the server has gone.
    settings: dict[str, Any] = {"poolclass": sqlalchemy.NullPool, "pool_reset_on_return": None}
    if url.get_backend_name() == "sqlite":
        _check_journal(Path(url.database or ""))
        settings["connect_args"] = {"timeout": LOCK_TIMEOUT_SECONDS}
    return settings


def engine(url: str) -> sqlalchemy.Engine:
    """Return SQLAlchemy's engine for the database at `url`."""
    import sqlalchemy

    parsed = engine_url(url)
    return sqlalchemy.create_engine(parsed, **engine_settings(parsed))


_engine_of_server = functools.cache(engine)
"""Made once: a new one asks the server for its version and its settings."""


@contextlib.contextmanager
def transaction(url: str, *, writing: bool = False) -> Iterator[Rows]:
    """Connect to a database that exists, and return what runs queries, for a `with` block.

    What queries read from a file is of one moment. On a server, a later query may see more.

    Args:
        url: Of the database.
        writing: Whether all that the block writes is written, durably, at its end; nothing is
            where the block fails. Of a file, no other process writes anything meanwhile.

    Raises:
        LedgerError: What the block decodes is not what a ledger holds.
    """
    file = sqlite_file(url)
    if file is None:
        connection: Any = _engine_of_server(url).raw_connection()
        words = {"?": "%s"}
    else:
        _check_journal(file)
        # For writing in any case: what a killed process left half written is undone by whoever
        # reads.
        name = f"{file.as_uri()}?mode=rw"
        connection = sqlite3.connect(name, timeout=LOCK_TIMEOUT_SECONDS, uri=True)
        words = {"string_agg(": "group_concat(", " FOR UPDATE": ""}

    def rows(query: str, *parameters: object) -> list[tuple[Any, ...]]:
        for ours, theirs in words.items():
            query = query.replace(ours, theirs)
        cursor.execute(query, parameters)
        # Only a query that may return rows describes them.
        found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return found

    # A statement that failed would keep the database locked until its cursor is closed.
    with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
        if file is not None:
            cursor.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        with decoding_ledger(url):
            yield rows
        if writing:
            connection.commit()


def _check_journal(file: Path) -> None:
    """Refuse a database whose journal would make SQLite delete another file.

    A transaction of several databases leaves one; nothing of ours writes such a transaction.
    """
    # SQLite looks beside the file itself.
    journal = Path(f"{file.resolve()}-journal")
    # One that is there may be gone at once: a writer removes its own.
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(journal.stat().st_mode):
            with journal.open("rb") as content:
                content.seek(max(0, os.fstat(content.fileno()).st_size - len(_SUPER_JOURNAL)))
                if content.read() != _SUPER_JOURNAL:
                    return
        line = f"got {journal}, which no search leaves: reading it could delete other files"
        raise LedgerError(f"ledger {file}: {line}; do not use a study that you do not trust")


@contextlib.contextmanager
def decoding_ledger(url: str) -> Iterator[None]:
    """Raise `LedgerError` where the block cannot use what the database at `url` holds."""
    try:
        yield
    except UNUSABLE as error:
        line = f"it is damaged ({type(error).__name__}: {one_line(error)})"
        raise LedgerError(
            f"ledger {shown(url)}: {line}; restore a copy or name a new study"
        ) from error


def shown(url: str) -> str:
    """Return `url` as it may be printed: without its password."""
    if sqlite_file(url) is not None:
        return url
    import sqlalchemy

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return repr(url)


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise `LedgerError` for whatever the database at `url` raises in the block."""
    try:
        yield
    except ImportError as error:
        postgresql = url.startswith("postgresql")
        fix = "pip install 'hwnas[postgresql]'" if postgresql else "install the database's driver"
        missing = first_line(error.__cause__ or error)
        raise LedgerError(f"ledger {shown(url)}: {missing}; {fix}") from error
    except Exception as error:
        if not _of_database(error):
            raise
        raise LedgerError(f"ledger {shown(url)}: {with_hint(error)}") from error


def _of_database(error: BaseException) -> bool:
    """Return whether a database or what leads to it raised an error; loads none of them."""
    bases = (base.__module__.partition(".")[0] for base in type(error).__mro__)
    return any(package in _RAISED_BY for package in bases)


def is_refused_twice(error: BaseException) -> bool:
    """Return whether a database refused a row that may not be there twice."""
    return any(base.__name__ == "IntegrityError" for base in type(error).__mro__)


def is_away(error: BaseException) -> bool:
    """Return whether a database may answer if it is asked again later.

    A file is locked by another process; a server was not reached, ended the connection, as when it
    is restarted, or was kept from the work by what others do.
    """
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.OperationalError):
        # The lowest byte is the kind of the error.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    names = {f"{base.__module__}.{base.__name__}" for base in type(cause).__mro__}
    if names.isdisjoint(("psycopg2.OperationalError", "psycopg2.InterfaceError")):
        return False
    # Without a code there was no answer.
    code = getattr(cause, "pgcode", None)
    return code is None or code.startswith(_AWAY_CODES)


def reported(error: BaseException) -> str:
    """Return what a database reported, on one line."""
    cause: BaseException = error
    if type(cause).__name__ == "StorageInternalError" and cause.__cause__ is not None:
        cause = cause.__cause__
    if type(cause).__name__ in ("NoSuchModuleError", "ArgumentError"):
        return f"got a URL of an unknown kind, {_URLS}"
    return first_line(getattr(cause, "orig", None) or cause)


def with_hint(error: BaseException) -> str:
    """Return what a database reported, and how to go on where that is known, on one line."""
    text = reported(error)
    hints = [hint for words, hint in _HINTS.items() if words in text.lower()]
    return "; ".join([text, *hints[:1]])
