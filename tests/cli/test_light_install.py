"""A board: the wheel with NumPy and ONNX Runtime, and none of the packages of a search."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

import nas
import nas.devices
from nas.core.host import usable_cores

pytestmark = pytest.mark.slow

ROOT = Path(nas.__file__).parent.parent
FAST = {"min_rounds": 36, "min_seconds": 0.0, "block_ms": 0.5, "relative_ci": 10.0}
HEAVY = ("torch", "ray", "optuna", "pandas", "onnx", "hydra", "matplotlib", "psutil", "rich")


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0]


def link(distribution: str, folder: Path, linked: set[str]) -> None:
    """Link what is installed of a distribution and of what it needs, extras left out."""
    if distribution in linked:
        return
    linked.add(distribution)
    found = metadata.distribution(distribution)
    for part in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
        if not (folder / part).exists() and part != "__pycache__":
            (folder / part).symlink_to(Path(str(found.locate_file(part))))
    for requirement in found.requires or []:
        if "extra ==" not in requirement:
            link(name_of(requirement), folder, linked)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of commands of an environment as `pip install 'hwnas[agent]'` makes it."""
    folder = tmp_path_factory.mktemp("light")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*build, folder / "dist", ROOT], check=True, capture_output=True, timeout=200)
    [wheel] = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    bin_ = folder / "venv" / "bin"
    python = str(bin_ / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", wheel], check=True, capture_output=True, timeout=200)
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    [found] = metadata.distributions(name="hwnas", path=[str(site)])
    of_agent = re.compile(r"""extra == ["']agent["']""")
    needs = [r for r in found.requires or [] if "extra" not in r or of_agent.search(r)]
    assert {name_of(requirement) for requirement in needs} == {"numpy", "onnxruntime"}
    linked: set[str] = set()
    for requirement in needs:
        link(name_of(requirement), site, linked)
    code = f"import importlib.util as u; print([n for n in {HEAVY} if u.find_spec(n)])"
    assert run(python, "-c", code, folder=folder).stdout == "[]\n"
    return bin_


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=plain(), capture_output=True, text=True, timeout=100, check=False
    )


def plain() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


def test_a_board_measures(light: Path) -> None:
    from torch import nn

    device = nas.devices.get(
        "remote", command="env -u PYTHONPATH", python=str(light / "python"), **FAST
    )
    measurement = device.measure(nn.Conv2d(3, 8, 3), (3, 16, 16))
    assert len(measurement.samples_ms) >= 36
    assert measurement.peak_memory_mb is not None
    here = nas.devices.get("cpu", **FAST).identity()
    assert device.identity() == here | {"name": "remote"}


@pytest.mark.parametrize(
    "command",
    [
        ("search",),
        ("studies",),
        ("pareto", "x"),
        ("export", "x"),
        ("spaces",),
        ("show", "mobilenet", "mobilenet_v2"),
        ("device", "measure", "x.onnx"),
    ],
)
def test_a_command_that_needs_more_says_what(
    light: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended = run(light / "nas", *command, folder=tmp_path)
    assert ended.stderr.count("\n") == 1
    for named in (command[0], "hydra-core", "pip install 'hwnas[search]'"):
        assert named in ended.stderr
    assert ended.returncode == 2


def test_help_and_version_need_nothing(light: Path, tmp_path: Path) -> None:
    assert run(light / "nas", "--version", folder=tmp_path).stdout == f"nas {nas.__version__}\n"
    printed = run(light / "nas", "device", "--help", folder=tmp_path).stdout
    assert "measure" in printed


def test_the_doctor_says_what_is_missing(light: Path, tmp_path: Path) -> None:
    ended = run(light / "nas", "doctor", "--json", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = {row["what"]: row for row in json.loads(ended.stdout)}
    assert rows["package onnxruntime"]["found"] == metadata.version("onnxruntime")
    assert rows["runtime onnxruntime"]["fix"] is None
    assert rows["package torch"] == {
        "what": "package torch",
        "found": None,
        "fix": "pip install 'hwnas[search]'",
    }
    assert rows["runtime torch"]["fix"]
    assert f"{usable_cores()} cores" in rows["processor"]["found"]


def test_a_board_lists_what_it_has(light: Path, tmp_path: Path) -> None:
    listed = run(light / "nas", "device", "list", folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert f"onnxruntime  {metadata.version('onnxruntime')}" in listed.stdout
    assert "pip install 'hwnas[search]'" in listed.stdout  # for the runtime of PyTorch
