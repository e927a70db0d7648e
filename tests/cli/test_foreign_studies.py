"""A study's folder that came from somebody else is data: it runs no code and is sent no secret."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nas_command import Ended, Finished

from nas.results.study import LEDGER_URL

pytestmark = pytest.mark.slow  # a finished study is made for it

Here = Callable[..., Ended]
NAME = "\x1b]0;mine\x07[red]\u202e"
SECRET = "not-for-your-eyes"
CODE = "from pathlib import Path\nPath({mark!r}).touch()\n"


@pytest.fixture
def foreign(finished: Finished, tmp_path: Path) -> Path:
    """Return a copy of a finished study, `runs/small` of the folder that `here` runs in."""
    return Path(shutil.copytree(finished.folder, tmp_path / "runs" / "small"))


def change(study: Path, **entries: Any) -> None:
    record = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**record, **entries}))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Return the name of a module that no process has imported, and the file that it leaves."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "space_of_somebody", tmp_path / "it_ran"
    sys.modules.pop("space_of_somebody", None)


@pytest.mark.parametrize("command", [("studies",), ("pareto", NAME)])
def test_a_table_shows_no_escape_characters(
    foreign: Path, here: Here, command: tuple[str, ...]
) -> None:
    change(foreign, status="\x9b2J[bold]")
    foreign.rename(foreign.with_name(NAME))
    ended = here(*command)
    assert ended.returncode == 0, ended.stderr
    assert "\\x1b]0;mine\\x07[red]\\u202e" in ended.stdout
    assert not set("\x1b\x07\x9b\u202e") & set(ended.stdout)


def assert_refused(ended: Ended, *words: str) -> None:
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert not [word for word in words if word not in ended.stderr], ended.stderr


def test_an_export_imports_nothing_unless_it_is_allowed(
    foreign: Path, here: Here, module: tuple[str, Path], tmp_path: Path
) -> None:
    name, mark = module
    change(foreign, imports=[name])
    (tmp_path / f"{name}.py").write_text(CODE.format(mark=str(mark)))
    assert_refused(here("export", "small"), "--allow-imports", str(tmp_path / f"{name}.py"))
    for command in (["studies"], ["pareto", "small"]):
        assert here(*command).returncode == 0
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    ended = here("export", "small", "--allow-imports")
    assert ended.returncode == 0, ended.stderr
    assert mark.exists()
    # It has run by now, as the space of a study that this process has searched would have.
    assert here("export", "small").returncode == 0


@pytest.mark.parametrize("as_package", [False, True])
def test_nothing_is_imported_from_the_folder_of_the_study(
    foreign: Path,
    here: Here,
    module: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    as_package: bool,
) -> None:
    name, mark = module
    change(foreign, imports=[f"{name}.part" if as_package else name])
    (foreign / name).mkdir()
    for file in (f"{name}.py",) if not as_package else (f"{name}/__init__.py", f"{name}/part.py"):
        (foreign / file).write_text(CODE.format(mark=str(mark)))
    monkeypatch.chdir(foreign)
    assert_refused(here("export", ".", "--allow-imports"), name, str(foreign))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["", ".relative", "os; print()", "../x", "a b", None, 3])
def test_what_is_no_name_of_a_module_is_refused(foreign: Path, here: Here, name: object) -> None:
    change(foreign, imports=[name])
    assert_refused(here("export", "small", "--allow-imports"), "imports")


def test_a_file_outside_of_the_study_is_not_exported(
    foreign: Path, here: Here, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(SECRET)
    deployments = list(foreign.glob("finalised/*/deployment.json"))

    def deploy(file: str) -> None:
        for deployment in deployments:
            record = json.loads(deployment.read_text())
            deployment.write_text(json.dumps({**record, "file": file}))

    deploy("../../../../key")
    assert_refused(here("export", "small"), "deployment.json")
    deploy("deployed.key")
    for deployment in deployments:
        (deployment.parent / "deployed.key").symlink_to(tmp_path / "key")
    assert_refused(here("export", "small"), "deployed.key")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """Return the address of a server that says nothing, and what it was sent."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    connection = listening.accept()[0]
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    received.append(b"connected: " + connection.recv(1000))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", received
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("user", ["${oc.env:HWNAS_SECRET}", "u", "${oc.env:HWNAS_SECRET}:x", "u:x"])
def test_no_server_that_a_study_names_is_connected_to(
    foreign: Path,
    here: Here,
    server: tuple[str, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    user: str,
) -> None:
    address, received = server
    monkeypatch.setenv("HWNAS_SECRET", SECRET)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    change(foreign, ledger_url=f"postgresql://{user}@{address}/d?sslmode=disable")
    listed = here("studies", "--json")
    assert listed.returncode == 0
    [record] = json.loads(listed.stdout)
    assert record["name"] == "small"
    assert record["trials_complete"] is None
    assert " - " in here("studies").stdout
    warm = ("search", "experiment=quickstart", "name=new", "search.warm_start=[small]")
    for command in (("pareto", "small"), ("export", "small"), warm):
        ended = here(*command)
        assert_refused(ended, LEDGER_URL if command != warm else "warm_start")
        assert SECRET not in ended.stderr + ended.stdout
    assert received == []
    # The server that the reader names is asked, and nothing else.
    monkeypatch.setenv(LEDGER_URL, f"postgresql://me@{address}/d?sslmode=disable")
    change(foreign, ledger_url="postgresql://u@192.0.2.1/d")
    assert_refused(here("pareto", "small"), "ledger")
    assert received != []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:////dev/zero", "${oc.env:HWNAS_SECRET}", 3])
def test_a_ledger_that_is_no_file(
    foreign: Path, here: Here, monkeypatch: pytest.MonkeyPatch, url: object
) -> None:
    monkeypatch.setenv("HWNAS_SECRET", SECRET)
    change(foreign, ledger_url=url)
    ended = here("pareto", "small")
    assert_refused(ended, "ledger")
    assert SECRET not in ended.stderr
    assert here("studies").returncode == 0


def test_a_setting_of_a_study_stands_for_nothing(
    foreign: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_SECRET", SECRET)
    record = json.loads((foreign / "study.json").read_text())
    change(foreign, space={**record["space"], "max_depth": "${oc.env:HWNAS_SECRET}"})
    ended = here("export", "small")
    assert_refused(ended, "max_depth")
    assert SECRET not in ended.stderr
