"""The database of a ledger: its URL, its tables, and one line for whatever it reports."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from nas.core.errors import LedgerError, first_line

LOCK_TIMEOUT_SECONDS = 20
OPENING_ATTEMPTS = 5

UNIQUE_NUMBER = "hwnas_unique_number"
"""Attribute of a trial that no two trials of a database share: the study's name and the number."""

_NUMBERED_ONCE = f"""
    CREATE UNIQUE INDEX IF NOT EXISTS {UNIQUE_NUMBER} ON trial_user_attributes (value_json)
    WHERE "key" = '{UNIQUE_NUMBER}'
"""

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


def sqlite_url(path: Path) -> str:
    """Return the URL of a ledger in the SQLite file `path`, whatever characters that holds."""
    url = sqlalchemy.URL.create("sqlite", database=path.absolute().as_posix())
    return url.render_as_string(hide_password=False)


def engine_url(url: str) -> sqlalchemy.URL:
    """Return `url` for SQLAlchemy, a plain `postgresql://` with the driver that we depend on.

    Raises:
        ArgumentError: It is the URL of neither SQLite nor PostgreSQL.
    """
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ArgumentError(url)
    plain = parsed.drivername == "postgresql"
    return parsed.set(drivername="postgresql+psycopg2") if plain else parsed


def open_storage(url: str, *, skip_table_creation: bool = False) -> RDBStorage:
    """Return Optuna's storage in the database at `url`; no connection stays open between calls.

    Raises:
        LedgerError: The tables are those of another release of Optuna.
    """
    # NullPool: a candidate may train for hours, in which a server drops an idle connection.
    settings: dict[str, Any] = {"poolclass": sqlalchemy.NullPool}
    parsed = engine_url(url)
    if parsed.get_backend_name() == "sqlite":
        settings["connect_args"] = {"timeout": LOCK_TIMEOUT_SECONDS}
    text = parsed.render_as_string(hide_password=False)
    try:
        return RDBStorage(text, settings, skip_table_creation=skip_table_creation)
    except RuntimeError as error:
        raise LedgerError(f"ledger {shown(url)}: {first_line(error)}") from error


def prepared_storage(url: str) -> RDBStorage:
    """Return a storage whose database has all tables and the index of trial numbers."""
    for attempts_left in reversed(range(OPENING_ATTEMPTS)):
        try:
            storage = open_storage(url)
            with storage.engine.begin() as connection:
                connection.execute(sqlalchemy.text(_NUMBERED_ONCE))
            return storage
        except (OperationalError, ProgrammingError, IntegrityError) as error:
            # Another process may make the same tables at the same time.
            made = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not made or not attempts_left:
                raise
            time.sleep(0.1)
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's information and its notes on experimental features from being printed."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def shown(url: str) -> str:
    """Return `url` as it may be printed: without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url)


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
        missing = first_line(error.__cause__ or error)
        raise LedgerError(f"ledger {shown(url)}: {missing}; {fix}") from error


def _explain(error: BaseException) -> str:
    cause: BaseException = error
    if isinstance(cause, StorageInternalError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, NoSuchModuleError | ArgumentError):
        return f"got a URL of an unknown kind, {_URLS}"
    if isinstance(cause, DBAPIError) and cause.orig is not None:
        cause = cause.orig
    text = first_line(cause)
    hints = [hint for words, hint in _HINTS.items() if words in text.lower()]
    return "; ".join([text, *hints[:1]])
