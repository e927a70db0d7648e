"""What files may keep of a ledger's URL."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from nas.core.errors import ConfigError, LedgerError
from nas.results.database import engine_url, sqlite_url
from nas.study.folder import StudyFolder
from nas.study.reading import reachable, recordable


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u:secret@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql+psycopg2://u:se%40cr:et@h/d?sslmode=require", None),
        ("postgresql://u:/secret/@h/d", "postgresql://u@h/d"),
    ],
)
def test_a_password_is_left_out(url: str, kept: str | None) -> None:
    expected = kept or "postgresql+psycopg2://u@h/d?sslmode=require"
    assert recordable(url) == expected


def test_the_path_of_a_file_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reachable("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    # Asking does not make it.
    assert not list(tmp_path.iterdir())
    sqlite3.connect("x.db").close()
    assert reachable("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////nowhere/x.db",
        "sqlite:////tmp/x.db?timeout=3",
        "sqlite:///file:/tmp/x.db?uri=true",
        "postgresql://h?password=x",
        "postgresql://h?sslpassword=x",
    ],
)
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.url"):
        reachable(url)


@pytest.mark.parametrize("name", ["r?1", "r#1", "r%20", "{r}", "${r}", "r r", "grün", "r\\1"])
def test_a_path_of_any_characters_stays_the_same(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = StudyFolder(folder).ledger_url
    assert reachable(url) == url == sqlite_url(folder / "ledger.db")
    assert engine_url(url).database == str(folder / "ledger.db")
    assert recordable(url) == url


@pytest.mark.parametrize(
    "url", ["foo", "foo://h/d", "mysql://h/d", "postgresql://u:secret@127.0.0.1:1/d"]
)
def test_a_database_that_does_not_answer(url: str) -> None:
    with pytest.raises(LedgerError) as refused:
        reachable(url)
    assert "secret" not in str(refused.value)


def test_a_journal_that_names_another_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE t (x)")
    journal = tmp_path / "ledger.db-journal"
    journal.write_bytes(b"name" + bytes.fromhex("d9d505f920a163d7"))
    with pytest.raises(LedgerError, match=journal.name):
        reachable(sqlite_url(file))
    assert journal.exists()
