"""The URL of a study's ledger: what the study connects to, and what of it files may keep."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy

from nas.core.errors import ConfigError
from nas.results.database import engine_url, sqlite_url, translated

_PASSWORD = re.compile(r"^([^/]+://[^:/@]*):([^@]*)@")
_VARIABLE = re.compile(r"\$\{[^}]*\}")


def reachable(url: str) -> str:
    """Return `url`, the path of an SQLite file made absolute, after the database has answered.

    Raises:
        ConfigError: The URL names no file in a folder that exists, has settings of SQLite behind
            the `?`, or its password there, where messages would show it.
        LedgerError: The URL is of an unknown kind, or the database cannot be reached or read.
    """
    with translated(url):
        parsed = engine_url(url)
        if "password" in parsed.query:
            expected = "USER:PASSWORD@HOST, or the password in PGPASSWORD"
            raise ConfigError("ledger.url", "a password behind the '?'", expected)
        if parsed.get_backend_name() == "sqlite":
            if parsed.query:
                expected = "sqlite:///FILE without a '?', which is %3F in the name of a file"
                raise ConfigError("ledger.url", url, expected)
            file = Path(parsed.database or "").expanduser().absolute()
            if parsed.database in (None, "", ":memory:") or not file.parent.is_dir():
                expected = "sqlite:///FILE, the file in a folder that exists"
                raise ConfigError("ledger.url", url, expected)
            url = sqlite_url(file)
            if not file.exists():
                return url
        engine = sqlalchemy.create_engine(engine_url(url), poolclass=sqlalchemy.NullPool)
        sqlalchemy.inspect(engine).get_table_names()
    return url


def recordable(written: str, url: str) -> str:
    """Return what files may keep of a ledger's URL: no password.

    Args:
        written: The URL as the user wrote it; `${oc.env:NAME}` in it is kept as it stands, and
            read again from the environment by whoever opens the study.
        url: What it stands for.
    """
    variables = _VARIABLE.findall(written)
    text = written if variables else url
    for index, variable in enumerate(variables):
        text = text.replace(variable, f"\0{index}\0", 1)
    match = _PASSWORD.match(text)
    if match is not None and not re.fullmatch("\0[0-9]+\0", match[2]):
        text = f"{match[1]}@{text[match.end() :]}"
    for index, variable in enumerate(variables):
        text = text.replace(f"\0{index}\0", variable)
    return text
