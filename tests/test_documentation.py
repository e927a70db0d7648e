"""The documentation's site: every page, link and docstring of it can be read."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nas.cli.main import _COMMANDS
from nas.cli.parser import CONFIGURED, parser, settings_parser
from nas.study.composition import compose
from nas.study.reading import every_setting

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "nas").glob("*/README.md")),
    REPOSITORY / "search_spaces" / "README.md",
]
OWN = re.compile(r"\bmy_\w+")
"""What the reader is to write: such a module or configuration is not here."""


def commands() -> list[tuple[str, str]]:
    """Return every `nas` command of the pages, with its page, lines joined."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        lines = re.findall(r"^(?: {4}|\$ )?(nas [^|\n]*)$", text, re.MULTILINE)
        found += [(page.relative_to(REPOSITORY).as_posix(), line) for line in lines]
    return found


def blocks() -> list[tuple[str, str]]:
    """Return every block of Python of the pages, with its page."""
    return [
        (page.relative_to(REPOSITORY).as_posix(), code)
        for page in PAGES
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_the_pages_can_be_given(page: str, line: str) -> None:
    _, name, *words = (word for word in shlex.split(line, comments=True) if word != "...")
    if name not in CONFIGURED:
        assert parser().parse_args([name, *words]).command == name
        return
    parsed = settings_parser(name).parse_intermixed_args(words)
    if parsed.config_dir is None:
        config = compose(parsed.overrides)
        if name != "compress" and not OWN.search(line):  # whose base is a study of the reader's
            every_setting(config)


@pytest.mark.parametrize(("page", "code"), blocks())
def test_python_of_the_pages_names_what_there_is(page: str, code: str) -> None:
    known: dict[str, ModuleType] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if not OWN.match(alias.name):
                    module = importlib.import_module(alias.name)
                    top = alias.name.partition(".")[0]
                    known[alias.asname or top] = module if alias.asname else sys.modules[top]
        elif isinstance(node, ast.ImportFrom) and node.module and not OWN.match(node.module):
            module = importlib.import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = known.get(node.value.id)
            assert module is None or hasattr(module, node.attr), ast.unparse(node)


def test_the_site_is_written_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    ended = subprocess.run(
        [*command, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "docs" / "api.html").read_text()
    assert all(f'id="{name}"' in page for name in ("nas.search", "search_spaces.get"))


def test_every_experiment_has_its_command_among_the_benchmarks() -> None:
    text = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    for readme in sorted((REPOSITORY / "experiments").glob("*/README.md")):
        name = readme.parent.name
        scripts = re.findall(rf"`python (experiments/{name}/\w+\.py)", text)
        assert scripts, f"{name} is missing"
        assert all((REPOSITORY / script).is_file() for script in scripts)


def test_every_command_is_described() -> None:
    text = (REPOSITORY / "docs" / "commands.md").read_text()
    assert not [
        name
        for name in (*_COMMANDS, *CONFIGURED)
        if f"| `nas {name}" not in text and f", `nas {name}" not in text
    ]
