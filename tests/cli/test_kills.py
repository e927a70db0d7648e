"""Twenty random kills, of the command and of what it has started, change nothing of its result."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from nas_command import COMMAND, SMALL, Nas, environment, wait_until_gone

from nas.results.study import StudyResults

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

KILLS = 20
SEED = 16
LONGEST_S = 5.0
"""Until a run is killed, from its start or from when its workers run."""

TRAINING_SHARE = 0.7
"""Of the kills of a search, when its workers run."""

# No objective needs a measurement, which would differ between two studies; members are measured.
SEARCH = ("search", *SMALL, "search.objectives=[error,params_m]", "search.evaluations=30")
EXPORT = ("export", "small", "--pick", "knee")
SAME = ["number", "arch_id", "genotype", "seed", "error", "params_m", "verified", "error_final"]

Choice = Callable[[psutil.Process], list[psutil.Process]]


def named(*texts: str) -> Choice:
    def choose(driver: psutil.Process) -> list[psutil.Process]:
        found = []
        for process in driver.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())[:500]
                found += [process] * any(text in command for text in texts)
        return found[:1]

    return choose


TARGETS: dict[str, Choice] = {
    "driver": lambda driver: [driver],
    "group": lambda driver: [driver, *driver.children(recursive=True)],
    "worker": named("ray::_run", "ray::IDLE"),
    "raylet": named("raylet/raylet"),
    "measuring process": named("nas.devices.measuring.worker"),
}


class Killed:
    """A command that is killed at random moments, and started again where that ended it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.random = random.Random(SEED)
        self.killed: list[str] = []
        self._family: list[psutil.Process] = []

    def run(self, *arguments: str, kills: int, longest_s: float) -> None:
        """Run a command to its end, with at most so many kills on the way."""
        last = len(self.killed) + kills
        trains = arguments[0] == "search"
        while True:
            errors = self.folder / "errors.txt"
            with errors.open("w") as written, (self.folder / "output.txt").open("a") as output:
                process = subprocess.Popen(
                    [COMMAND, *arguments],
                    cwd=self.folder,
                    env=environment(None),
                    stdout=output,
                    stderr=written,
                    start_new_session=True,
                )
            while process.poll() is None and len(self.killed) < last:
                if trains and self.random.random() < TRAINING_SHARE:
                    self._wait_for_workers(process)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.random.uniform(0, longest_s))
                self._kill(process.pid)
            status = process.wait(280)
            wait_until_gone([p for p in self._family if p.is_running() and status != -9])
            said = errors.read_text()
            assert "Traceback" not in said
            # Ray itself ends a process whose raylet is gone while it is not listened to.
            expected = (0, 1, 2, -signal.SIGKILL) if "raylet" in self.killed else (0, 2, -9)
            assert status in expected, (said, self.killed)
            if status in (1, 2):
                assert [line for line in said.splitlines() if line.startswith("nas: ")], said
            if status == 0:
                return

    def _wait_for_workers(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until candidates are trained, or the process has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            driver = psutil.Process(process.pid)
            while process.poll() is None and not TARGETS["worker"](driver):
                time.sleep(0.2)

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            driver = psutil.Process(pid)
            self._family += driver.children(recursive=True)
            there = {name: found for name, choose in TARGETS.items() if (found := choose(driver))}
            # What is seldom there is killed when it is.
            name = min(there, key=lambda name: (self.killed.count(name), self.random.random()))
            self.killed.append(name)
            for process in there[name]:
                process.kill()

    def assert_nothing_is_left(self) -> None:
        wait_until_gone([process for process in self._family if process.is_running()])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    killed = Killed(tmp_path_factory.mktemp("killed"))
    killed.run(*SEARCH, kills=KILLS - 4, longest_s=LONGEST_S)
    # An export may end before it is killed; the next one takes its place.
    while (kills := KILLS - len(killed.killed)) > 0:
        killed.run(*EXPORT, kills=kills, longest_s=LONGEST_S)
    return killed


def test_the_study_and_its_export_are_those_of_an_uninterrupted_run(
    killed: Killed, tmp_path: Path
) -> None:
    nas = Nas(tmp_path)
    for command in (SEARCH, EXPORT):
        ended = nas(*command)
        assert ended.returncode == 0, ended.stderr
    expected, study = (
        StudyResults(folder / "runs" / "small") for folder in (tmp_path, killed.folder)
    )
    assert study.status == "finalised"
    assert study.trials()[SAME].equals(expected.trials()[SAME])
    columns = ["arch_id", "error_final", "error_test", "params_m"]
    assert study.pareto()[columns].equals(expected.pareto()[columns])
    for name in ("model.onnx", "model.safetensors", "model.py"):
        exported = (killed.folder / "out" / name).read_bytes()
        assert exported == (tmp_path / "out" / name).read_bytes(), name


def test_all_kinds_of_processes_were_killed(killed: Killed) -> None:
    assert len(killed.killed) == KILLS
    assert set(killed.killed) >= {"driver", "group", "worker", "raylet"}, killed.killed


def test_nothing_stays_behind(killed: Killed) -> None:
    killed.assert_nothing_is_left()
    deadline = time.monotonic() + 60
    while left := list(killed.folder.rglob("*.part")) + list(killed.folder.glob(".out-*")):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    assert {path.name for path in killed.folder.iterdir()} == {
        "runs",
        "out",
        "errors.txt",
        "output.txt",
    }
