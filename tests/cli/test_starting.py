"""How the command starts: at once, from any folder, and from a wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from nas_command import Ended, environment

import nas
from nas.data import fashion_mnist

Here = Callable[..., Ended]
ROOT = Path(nas.__file__).parent.parent
HEAVY = ("torch", "ray", "hydra", "pandas", "optuna", "numpy", "matplotlib", "rich", "sqlalchemy")


def loaded_by(code: str) -> set[str]:
    code = f"import sys\n{code}\nprint(*(n for n in {HEAVY} if n in sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    return set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["export", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"import nas.cli.main\nnas.cli.main.main({arguments})"
    assert loaded_by(code) == set()


def test_a_mistyped_setting_is_refused_before_torch_and_ray_load() -> None:
    code = "import nas.cli.main\nnas.cli.main.main(['search', 'search.evaluations=many'])"
    assert loaded_by(code) <= {"hydra", "rich", "numpy"}


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    from nas.cli.main import main

    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("search", "studies", "pareto", "export", "fetch"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nas {nas.__version__}\n"


def test_the_composed_configuration_is_printed(here: Here, tmp_path: Path) -> None:
    printed = yaml.safe_load(here("search", "--cfg", "job", "experiment=quickstart").stdout)
    assert printed["name"] == "quickstart"
    assert printed["search"]["algorithm"]["name"] == "guided"
    assert printed["device"]["threads"] == 1
    assert not list(tmp_path.iterdir())


def test_a_secret_of_the_environment_is_not_printed(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "not-for-your-eyes")
    url = 'ledger.url="postgresql://u:${oc.env:MINE}@h/d"'
    assert "not-for-your-eyes" not in here("search", "--cfg", "job", url).stdout


def test_a_reader_that_closes_early_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from nas.cli.main import main; sys.exit(main(['studies', '--json']))"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=100,
        )
    assert ended.stderr == ""


@pytest.mark.slow
def test_a_wheel_brings_its_configurations(tmp_path: Path) -> None:
    pytest.importorskip("build")
    built = tmp_path / "dist"
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, ROOT],
        check=True,
        capture_output=True,
        timeout=200,
    )
    [wheel] = built.glob("*.whl")
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    subprocess.run(pip, check=True, capture_output=True, timeout=200)
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment({"PYTHONPATH": str(site)}),
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
        )
        return ended.stdout

    used = run(
        "-c", "import nas.study.composition as s; print(s.__file__, s.config_folder())"
    ).split()
    assert all(Path(path).is_relative_to(site) for path in used), used
    printed = yaml.safe_load(run("-m", "nas.cli.main", "search", "--cfg", "job"))
    assert printed["search_space"]["name"] == "mobilenet"
    shown = json.loads(run("-m", "nas.cli.main", "show", "nasbench201", "residual", "--json"))
    assert shown["blocks"]
    notices = {path.name for path in (site / "nas" / "tables").iterdir()}
    published = {"nasbench201.npz", "nasbench_macro.csv.gz", "accel_nasbench.csv.gz"}
    assert {*published, "LICENSES.md", "LICENSE-APACHE-2.0.txt"} <= notices
    known = "import json, search_spaces; print(json.dumps(search_spaces.names()))"
    assert "mobilenet" in json.loads(run("-c", known))
    refused = "from nas.cli.main import main; print(main(['search', 'device.name=foo']))"
    assert run("-c", refused) == "2\n"


def test_fetch_is_content_with_a_copy_that_is_installed(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    for name in fashion_mnist.MD5:
        (installed / name).touch()
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", installed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert here("fetch", "fashion_mnist").stdout == f"{installed}\n"
    assert not (tmp_path / "cache").exists()


def test_fetch_without_copy_and_network_is_one_line(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "nothing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    ended = here("fetch", "fashion_mnist")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "cannot be downloaded" in ended.stderr


def test_the_shell_completes_options_and_settings(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "complete -o nospace" in here("search", "-sc", "install=bash").stdout

    def completed(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        return here("search", "-sc", "query=bash").stdout.split()

    assert completed("nas search data=dig") == ["data=digits"]
    assert "device=" in completed("nas search dev")
    assert completed("nas search search=nsga2 search.algorithm.pop") == [
        "search.algorithm.population="
    ]
    assert completed("nas search evaluation.recipe.ep") == ["evaluation.recipe.epochs="]


def test_the_folder_of_configurations_stands_anywhere(here: Here, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "data"
    mine.mkdir(parents=True)
    (mine / "half.yaml").write_text("name: digits\nsplit_seed: 9\n")
    for arguments in (
        ("data=half", "--multirun", "seed=0,1", "--config-dir", "mine", "--cfg", "job"),
        ("--config-dir=mine", "--cfg", "job", "data=half", "-m", "seed=0,1"),
    ):
        printed = here("search", *arguments).stdout
        assert printed.count("split_seed: 9") == 2
        assert "seed: 1 " in printed
