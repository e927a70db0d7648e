"""A ledger on a PostgreSQL server, whose password no file and no line shows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nas_command import SMALL, Ended

from nas.cluster.connection import connected
from nas.core.errors import LedgerError
from nas.results import ledger
from nas.results.ledger import Ledger
from nas.results.study import LEDGER_URL, StudyResults

sys.path.append(str(Path(__file__).parent.parent / "results"))
from ledger_processes import OWNED, RACING, at_once, start
from made_up_studies import GENES

pytestmark = pytest.mark.slow

Here = Callable[..., Ended]
SEARCH = (*SMALL, "search.objectives=[error,params_m]", "search.evaluations=2", "finalise.limit=0")
PASSWORD = "not-for-your-eyes"


def program(name: str) -> str:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        pytest.skip("PostgreSQL server not installed")
    return found


def unprivileged() -> str | None:
    """Return the user that the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    pytest.skip("PostgreSQL server not installed: there is no user postgres")


@dataclass
class Postgres:
    """A server; `place` is HOST:PORT/DATABASE for the user nas."""

    folder: Path
    user: str | None
    port: int

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}/postgres"

    def run(self, *command: str) -> None:
        subprocess.run(
            command,
            user=self.user,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        )
        log, data = str(self.folder / "log"), str(self.folder / "data")
        self.run(program("pg_ctl"), "-D", data, "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        data = str(self.folder / "data")
        self.run(program("pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Start a server."""
    initdb = program("initdb")
    user = unprivileged()
    with tempfile.TemporaryDirectory(prefix="hwnas-pg-", dir="/tmp") as name, socket.socket() as s:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        s.bind(("127.0.0.1", 0))
        server = Postgres(folder, user, s.getsockname()[1])
        s.close()
        data = str(folder / "data")
        server.run(initdb, "-D", data, "-U", "nas", "-A", "scram-sha-256", "--pwfile", "password")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def server(postgres: Postgres) -> str:
    """Return HOST:PORT/DATABASE of the server."""
    return postgres.place


@pytest.fixture(scope="module", autouse=True)
def workers(postgres: Postgres) -> Iterator[None]:
    with connected(None):
        yield


def assert_secret(folder: Path, *ended: Ended) -> None:
    """Check that the password stands nowhere."""
    assert not [e for e in ended if PASSWORD in e.stdout + e.stderr]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_of_two_studies_that_begin_at_once_one_gets_the_ledger(server: str) -> None:
    # The first test: they make the tables at once as well.
    url = f"postgresql://nas:{PASSWORD}@{server}"
    both = [start(OWNED, url, f"host:/{n}", str(n)) for n in (1, 2)]
    said = at_once(both)
    ended = [each.returncode for each in both]
    assert sorted(ended) == [0, 2], said
    assert f"host:/{1 + ended.index(0)}" in said[ended.index(2)]
    assert [t.number for t in Ledger.load(url, "digits").trials()] == list(range(6))


def test_the_password_comes_from_the_environment(
    server: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", PASSWORD)
    url = f'ledger.url="postgresql://nas:${{oc.env:LEDGER_PASSWORD}}@{server}"'
    command = ("search", *SEARCH, "name=from_environment", url)
    ended = here(*command)
    assert ended.returncode == 0, ended.stderr
    assert "nothing is left to do" in here(*command).stdout
    refused = here("pareto", "from_environment")
    assert refused.returncode == 2
    assert LEDGER_URL in refused.stderr
    assert refused.stderr.count("\n") == 1
    monkeypatch.setenv(LEDGER_URL, f"postgresql://nas:{PASSWORD}@{server}")
    shown = here("pareto", "from_environment", "--json")
    assert shown.returncode == 0, shown.stderr
    assert len(StudyResults(tmp_path / "runs" / "from_environment").trials()) == 2
    assert_secret(tmp_path, ended, shown, refused)


def test_a_password_on_the_command_line_is_kept_nowhere(
    server: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"ledger.url=postgresql://nas:{PASSWORD}@{server}"
    ended = here("search", *SEARCH, "name=typed", url, "finalise.limit=1")
    assert ended.returncode == 0, ended.stderr
    monkeypatch.setenv(LEDGER_URL, f"postgresql://nas@{server}")
    refused = here("pareto", "typed")
    assert refused.returncode == 2
    assert "PGPASSWORD" in refused.stderr
    assert refused.stderr.count("\n") == 1
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    shown = here("pareto", "typed")
    assert shown.returncode == 0, shown.stderr
    more = here("search", *SEARCH, "name=typed", f"ledger.url=postgresql://nas@{server}")
    assert more.returncode == 0, more.stderr
    assert_secret(tmp_path, ended, refused, shown, more)


def test_a_wrong_password_is_one_line(server: str, here: Here, tmp_path: Path) -> None:
    ended = here("search", *SEARCH, f"ledger.url=postgresql://nas:{PASSWORD[::-1]}@{server}")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "password authentication failed" in ended.stderr
    assert PASSWORD[::-1] not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_second_study_of_one_name_is_refused(
    server: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    command = ("search", *SEARCH, "name=shared", f"ledger.url=postgresql://nas@{server}")
    assert here(*command, "runs=one").returncode == 0
    refused = here(*command, "runs=two")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert str(tmp_path / "one" / "shared") in refused.stderr
    # A folder that has moved and has another name keeps its ledger.
    (tmp_path / "two").mkdir(exist_ok=True)
    moved = (tmp_path / "one" / "shared").rename(tmp_path / "two" / "moved")
    again = here(*command, "runs=two", "name=moved", "search.evaluations=3")
    assert again.returncode == 0, again.stderr
    monkeypatch.setenv(LEDGER_URL, f"postgresql://nas@{server}")
    assert len(StudyResults(moved).trials()) == 3
    # A new study in its old place does not get it.
    refused = here(*command, "runs=one")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1


def test_a_number_is_written_once_by_processes_at_once(server: str) -> None:
    url = f"postgresql://nas:{PASSWORD}@{server}"
    Ledger.open(url, "racing", ("error", "latency_ms"), GENES)
    said = at_once([start(RACING.replace("digits", "racing"), url, str(n)) for n in range(2)])
    assert sorted(int(number) for line in said for number in line.split()) == list(range(10))
    assert [t.number for t in Ledger.load(url, "racing").trials()] == list(range(10))


def stop_in_the_middle(postgres: Postgres, url: str, name: str) -> None:
    """Stop the server once two trials of a search are recorded."""
    while True:
        time.sleep(0.2)
        with contextlib.suppress(LedgerError):
            if len(Ledger.load(url, name).trials()) >= 2:
                break
    postgres.stop()


def test_a_search_outlasts_a_restart_of_its_server(
    postgres: Postgres,
    here: Here,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = f"postgresql://nas@{postgres.place}"

    def restart() -> None:
        stop_in_the_middle(postgres, url, "restarted")
        time.sleep(5)
        postgres.start()

    outage = threading.Thread(target=restart)
    outage.start()
    search = ("search", *SEARCH, "search.evaluations=8", f"ledger.url={url}")
    ended = here(*search, "name=restarted")
    outage.join()
    assert ended.returncode == 0, ended.stderr
    away, back = (record.getMessage() for record in caplog.records if "nas" in record.name)
    assert "trying again for 300 s" in away
    assert PASSWORD not in away
    assert "answers again" in back
    whole = here(*search, "name=whole")
    assert whole.returncode == 0, whole.stderr
    restarted, undisturbed = (Ledger.load(url, name).trials() for name in ("restarted", "whole"))
    assert restarted == [
        dataclasses.replace(trial, seconds=other.seconds)
        for trial, other in zip(undisturbed, restarted, strict=True)
    ]
    assert_secret(tmp_path, ended, whole)


def test_after_a_longer_outage_the_same_command_goes_on(
    postgres: Postgres,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(ledger, "OUTAGE_LIMIT_S", 2.0)
    url = f"postgresql://nas@{postgres.place}"
    outage = threading.Thread(target=stop_in_the_middle, args=(postgres, url, "away"))
    outage.start()
    command = ("search", *SEARCH, "search.evaluations=8", "name=away", f"ledger.url={url}")
    ended = here(*command)
    outage.join()
    absent = here(*command)
    postgres.start()
    assert ended.returncode == absent.returncode == 2
    assert "trying again for 2 s" in caplog.text
    for refused in (ended, absent):
        assert refused.stderr.count("\n") == 1
        assert refused.stderr.startswith("nas: ledger postgresql://nas@")
    kept = Ledger.load(url, "away").trials()
    assert 2 <= len(kept) < 8
    assert here(*command).returncode == 0
    trials = Ledger.load(url, "away").trials()
    assert len(trials) == 8
    # Workers finish in any order: what was kept need not be the first trials.
    numbers = {trial.number for trial in kept}
    assert [trial for trial in trials if trial.number in numbers] == kept
