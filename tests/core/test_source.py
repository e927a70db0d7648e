"""The code of classes that stand in no file."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nas.core.source import source_of

CELL = '''
class Space:
    """A space."""

    def genes(self):
        return ({first}, 2)  # a comment

    @property
    def size(self):
        return 2
'''


def cell(code: str, number: int) -> type:
    """Return the class of a notebook's cell, as IPython leaves it."""
    file = f"<ipython-input-{number}>"
    module = ModuleType("__main__")
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), module.__dict__)  # noqa: S102
    made: type = module.__dict__["Space"]
    return made


def test_a_class_of_a_notebook_is_told_by_its_methods(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    first = source_of(cell(CELL.format(first=1), 1))
    assert "return (1, 2)" in "".join(first)
    assert source_of(cell(CELL.format(first=1).replace("# a comment", ""), 2)) == first
    assert source_of(cell(CELL.format(first=3), 3)) != first


def test_what_runs_as_a_program_counts_by_the_class_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = ModuleType("__main__")
    program.__file__ = str(tmp_path / "program.py")
    code = "class Own:\n    size = 3\n\nevaluations = 48\n"
    Path(program.__file__).write_text(code)
    exec(compile(code, program.__file__, "exec"), program.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "__main__", program)
    assert source_of(program.Own) == ("class Own:\n    size = 3",)
