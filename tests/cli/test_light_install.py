"""A board: the wheel with NumPy and ONNX Runtime, and none of the packages of a search."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from wheel_environment import install, needs, run

import nas
import nas.devices
from nas.core.host import usable_cores

pytestmark = pytest.mark.slow

FAST = {"min_rounds": 36, "min_seconds": 0.0, "block_ms": 0.5, "relative_ci": 10.0}
HEAVY = ("torch", "ray", "optuna", "pandas", "onnx", "hydra", "matplotlib", "psutil", "rich")


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of commands of an environment as `pip install 'hwnas[agent]'` makes it."""
    folder = tmp_path_factory.mktemp("light")
    bin_ = install(wheel, "agent", folder / "venv")
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    [found] = metadata.distributions(name="hwnas", path=[str(site)])
    assert {each.name for each in needs(found, {"agent"})} == {"numpy", "onnxruntime"}
    code = f"import importlib.util as u; print([n for n in {HEAVY} if u.find_spec(n)])"
    assert run(bin_ / "python", "-c", code, folder=folder).stdout == "[]\n"
    return bin_


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
