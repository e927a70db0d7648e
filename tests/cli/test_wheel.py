"""The wheel: it holds what the packages need, and searches outside of the source tree."""

from __future__ import annotations

import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from nas_command import SMALL, Nas
from wheel_environment import install, run

import nas as package
from nas.results.study import StudyResults

pytestmark = pytest.mark.slow

ROOT = Path(package.__file__).parent.parent
CONFIGS = "configs/"
COUNTED = ("name=counted", "search.objectives=[error,params_m]")
"""Nothing of such a search depends on what is measured."""


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of commands of an environment as `pip install 'hwnas[search]'` makes it."""
    return install(wheel, "search", tmp_path_factory.mktemp("searching") / "venv")


def test_it_holds_every_tracked_file_of_the_packages(wheel: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no Git repository says which files belong to the packages")
    packages = ("nas/", "search_spaces/", "latency_predictors/", CONFIGS)
    listed = subprocess.run(
        ["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {f"nas/{f}" if f.startswith(CONFIGS) else f for f in listed.stdout.splitlines()}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in held if ".dist-info/" not in name} == tracked
    # Some of what that must be, whatever Git says.
    assert tracked > {
        "nas/py.typed",
        "nas/configs/experiment/quickstart.yaml",
        "nas/devices/measuring/sentinel.onnx",
        "nas/results/page/page.html",
        "nas/tables/nasbench201.npz",
        "search_spaces/py.typed",
        "latency_predictors/py.typed",
    }


def test_its_licences_are_named(wheel: Path) -> None:
    [found] = metadata.distributions(path=[str(wheel)])
    texts = {Path(name).name for name in found.metadata.get_all("License-File", [])}
    assert texts == {"LICENSE", "LICENSES.md", "LICENSE-APACHE-2.0.txt"}
    held = zipfile.ZipFile(wheel).namelist()
    assert all(any(f"licenses/{t}" in n or n.endswith(f"/{t}") for n in held) for t in texts)


def test_it_is_what_runs(installed: Path, tmp_path: Path) -> None:
    code = "import nas, search_spaces, latency_predictors as l\nprint(nas, search_spaces, l)"
    said = run(installed / "python", "-c", code, folder=tmp_path).stdout
    assert said.count(f"from '{installed.parent}/lib/") == 3
    settings = run(installed / "nas", "search", "--cfg", "job", *SMALL, folder=tmp_path)
    assert settings.returncode == 0, settings.stderr
    assert run(installed / "nas", "quickstart", "--help", folder=tmp_path).returncode == 0
    assert not list(tmp_path.iterdir())


def test_a_search_and_an_export_are_those_of_the_source_tree(
    installed: Path, nas: Nas, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    ended = run(installed / "nas", "search", *SMALL, *COUNTED, folder=outside)
    assert ended.returncode == 0, ended.stderr
    ended = nas("search", *SMALL, *COUNTED)
    assert ended.returncode == 0, ended.stderr
    columns = ["arch_id", "seed", "status", "error", "params_m", "error_final"]
    there, here = (
        StudyResults(folder / "runs" / "counted").trials()[columns]
        for folder in (outside, tmp_path)
    )
    assert there.equals(here)
    ended = run(installed / "nas", "export", "counted", folder=outside)
    assert ended.returncode == 0, ended.stderr
    ended = run(installed / "nas", "report", "counted", folder=outside)
    assert ended.returncode == 0, ended.stderr
