"""The command in an empty folder, one finished study for all tests that read one, the wheel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nas_command import COMMAND, SMALL, Ended, Finished, Nas

import nas as package
from nas.cli.main import main


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, what needs the installed command."""
    if not COMMAND.exists():
        reason = f"{COMMAND}: the project is not installed in this environment"
        for item in items:
            if {"nas", "finished", "interrupted"} & set(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def nas(tmp_path: Path) -> Nas:
    """Start the command in an empty folder."""
    return Nas(tmp_path)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run the command in this process, which saves the seconds that its imports take."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        status = main(arguments)
        captured = capfd.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run one small study to its end."""
    folder = tmp_path_factory.mktemp("finished")
    ended = Nas(folder)("search", *SMALL)
    assert ended.returncode == 0, ended.stderr
    return Finished(folder / "runs" / "small", ended.stdout)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the archive of sources, and the wheel from what that holds."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out]
    root = Path(package.__file__).parent.parent
    subprocess.run([*build, root], check=True, capture_output=True, timeout=200)
    [found] = out.glob("*.whl")
    return found
