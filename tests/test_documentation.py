"""The documentation's site: every page, link and docstring of it can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nas.cli.main import _COMMANDS
from nas.cli.parser import CONFIGURED

REPOSITORY = Path(__file__).parents[1]


def test_the_site_is_written_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    ended = subprocess.run(
        [*command, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "docs" / "api.html").read_text()
    assert all(f'id="{name}"' in page for name in ("nas.search", "search_spaces.get"))


def test_every_command_is_described() -> None:
    text = (REPOSITORY / "docs" / "commands.md").read_text()
    assert not [
        name
        for name in (*_COMMANDS, *CONFIGURED)
        if f"| `nas {name}" not in text and f", `nas {name}" not in text
    ]
