"""Output that cannot be written: no study is stopped by it; a command that only prints fails."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

import pytest
from nas_command import SMALL, Finished, environment

from nas.cli.main import _COMMANDS, main
from nas.core.output import Output
from nas.results.study import StudyResults
from nas.study.reporting import Reporter, console

ROOT = Path(__file__).resolve().parents[2]


def started(
    command: Sequence[str], redirected: str, folder: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command by a shell that redirects its output."""
    variables = environment({"PYTHONPATH": str(ROOT), **env})
    nas = f'"{sys.executable}" -m nas.cli.main "$@" {redirected}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", nas, "nas", *command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("redirected", ["> /dev/full", "| head -n 1", ">&- 2>&-"])
def test_a_study_is_not_stopped_by_its_display(redirected: str, tmp_path: Path) -> None:
    ended = started(("search", *SMALL), redirected, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    study = StudyResults(tmp_path / "runs" / "small")
    assert study.status == "finalised"
    assert (study.path / "pareto.csv").is_file()


@pytest.mark.parametrize(
    "command", [("pareto", "small"), ("pareto", "small", "--json"), ("studies",), ("--help",)]
)
def test_a_command_that_prints_needs_its_output(
    command: tuple[str, ...], finished: Finished
) -> None:
    folder = finished.folder.parent.parent
    for redirected in ("> /dev/full", ">&-"):
        ended = started(command, redirected, folder)
        assert ended.returncode == 2
        assert ended.stderr.startswith("nas: standard output")
        assert ended.stderr.count("\n") == 1, ended.stderr
    ended = started(command, "| true", folder)
    assert ended.returncode == 0
    assert ended.stderr == ""


def test_an_error_that_cannot_be_told_has_its_status(tmp_path: Path) -> None:
    for redirected in ("2> /dev/full", "2>&-"):
        assert started(("pareto", "x"), redirected, tmp_path).returncode == 2


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_an_encoding_that_lacks_a_character_is_no_error(
    env: dict[str, str], finished: Finished
) -> None:
    ended = started(("pareto", "small"), "", finished.folder.parent.parent, **env)
    assert ended.returncode == 0, ended.stderr
    assert "Pareto front" in ended.stdout


def test_progress_in_python_is_lossy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        Reporter().stage("a line")
        Reporter().stage("a line")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    monkeypatch.setattr(sys, "stdout", None)
    Reporter().stage("a line")
    # The stream of the reporter, not an exception, says that nothing was written.
    assert isinstance(console().file, Output)
    assert console().file.error is not None


def test_what_an_encoding_lacks_is_replaced() -> None:
    file = io.BytesIO()
    output = Output(io.TextIOWrapper(file, encoding="ascii"))
    output.write("1 ± 2 \udcff\n")
    output.flush()
    assert file.getvalue() == b"1 ? 2 ?\n"
    assert output.error is None


def test_bytes_are_written_between_the_texts() -> None:
    file = io.BytesIO()
    output = Output(io.TextIOWrapper(file))
    assert output.writable()
    output.write("a")
    output.buffer.write(b"\xffb")
    output.write("c")
    output.flush()
    assert file.getvalue() == b"a\xffbc"


def test_bytes_that_cannot_be_written_are_no_error() -> None:
    with Path("/dev/full").open("w") as full:
        output = Output(full)
        output.buffer.write(b"a" * 100_000)
        output.buffer.flush()
        assert output.error is not None
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_an_object_that_only_writes_is_a_stream() -> None:
    class Minimal:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    stream = Minimal()
    output = Output(cast("TextIO", stream))
    print("a", file=output, flush=True)
    assert (stream.text, output.isatty(), output.error) == ("a\n", False, None)


def test_a_text_at_an_exit_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(_COMMANDS, "studies", lambda parsed: sys.exit("no licence\nfound"))
    assert main(["studies"]) == 1
    assert capsys.readouterr().err == "nas: no licence found\n"
