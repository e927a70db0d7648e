"""`nas.search` and `nas.open` do what the command line does with the same settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bases import Net
from PIL import Image

import nas
import nas.search.loop
from nas.core.errors import HwnasError
from nas.results.study import StudyResults

TABLE = {"search.algorithm.initial": 8, "device.hardware": "raspi4"}


def test_the_room_stays_importable_and_is_callable() -> None:
    assert nas.search.loop.SearchLoop
    assert callable(nas.search)


def test_a_search_of_a_table_equals_that_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nas.cli.main import main

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    study = nas.search(
        evaluations=12,
        name="python",
        settings={**TABLE, "runs": tmp_path / "runs"},
        overrides=["experiment=nasbench201"],
    )
    assert "evaluating 12 architectures" in capsys.readouterr().out
    command = ["search", "experiment=nasbench201", "search.evaluations=12", "name=command"]
    assert main([*command, f"runs={tmp_path}/runs", *(f"{k}={v}" for k, v in TABLE.items())]) == 0
    same = ["arch_id", "error", "latency_ms_published"]
    other = nas.open("command", tmp_path / "runs").trials()
    pd.testing.assert_frame_equal(study.trials()[same], other[same])
    assert list(elsewhere.iterdir()) == []
    front = study.pareto(where="latency_ms_published < 1000")
    assert len(front) >= 1
    opened = nas.open(tmp_path / "runs" / "python")
    assert isinstance(opened, StudyResults)
    assert opened.name == "python"
    with pytest.raises(HwnasError, match="trained"):
        opened.export("knee", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"evaluations": 0}, r"search\.evaluations"),
        ({"budget": "soon"}, "budget: got 'soon'"),
        ({"objectives": ["fun"]}, "fun"),
        ({"space": "mobilnet"}, "mobilnet"),
        ({"data": "no/such/folder"}, "data"),
        ({"data": "photos"}, "folder"),
        ({"device": {"threads": 2}}, "device"),
        ({"settings": {"search.evaluation": 3}}, r"search\.evaluation"),
        ({"settings": {"search.algorithm": []}}, r"search\.algorithm"),
        ({"settings": {"data.path": object()}}, r"data\.path"),
        ({"space": 3}, "search_space"),
        ({"data": 3}, "data: got 3"),
        ({"config_dir": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(HwnasError, match=named):
        nas.search(**{"name": "x", **arguments})  # type: ignore[arg-type]


def test_importing_nas_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "hydra", "ray", "pandas")
    code = f"import sys, nas; print([n for n in {heavy} if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_a_module_is_compressed(tmp_path: Path) -> None:
    module = Net(1, 10)
    arguments: dict[str, Any] = {
        "data": "digits",
        "name": "small",
        "objectives": ["error", "model_size_mb"],
        "evaluations": 3,
        "settings": {
            "runs": tmp_path / "runs",
            "search.adaptive_measurement.measurements": 0,
            "search.algorithm.initial": 2,
            "finalise.limit": 1,
            "finalise.recipe.epochs": 0,
        },
    }
    study = nas.compress(module, **arguments)
    assert study.status == "finalised"
    trials = study.trials()
    assert set(trials.iloc[0]["genotype"]) == {0}, "the base is judged first"
    assert trials["model_size_mb_predicted"].min() < trials["model_size_mb_predicted"].iloc[0]
    nas.compress(module, **arguments)
    assert len(nas.open("small", tmp_path / "runs").trials()) == len(trials), "it goes on"
    folder, difference = study.export("fastest", tmp_path / "out")
    assert (folder / "model.py").is_file()
    assert difference < 1e-3


@pytest.mark.parametrize("base", [3, None, Net])
def test_what_is_no_network_is_not_compressed(base: object) -> None:
    with pytest.raises(HwnasError, match="base"):
        nas.compress(base, data="digits")  # type: ignore[arg-type]


def test_a_wrong_base_is_told_as_what_it_was_meant_to_be(tmp_path: Path) -> None:
    runs = {"runs": tmp_path}
    with pytest.raises(HwnasError, match=r"verified network of a study.*nothing"):
        nas.compress("nothing:knee", data="digits", settings=runs)
    with pytest.raises(HwnasError, match="space: got 'vit'"):
        nas.compress(Net(1, 10), data="digits", space="vit", settings=runs)
    with pytest.raises(HwnasError, match="outputs"):
        nas.compress(Net(1, 7), data="digits", name="x", settings=runs)


@pytest.mark.slow
def test_a_folder_of_images_is_searched_and_exported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        label = number % 2
        folder = tmp_path / "photos" / f"class_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 100, (8, 8), np.uint8) + np.uint8(120 * label)
        Image.fromarray(picture).save(folder / f"{number}.png")
    study = nas.search(
        space={"name": "mobilenet", "max_depth": 1, "resolutions": (8,), "widths": (0.5, 1.0)},
        data=tmp_path / "photos",
        device={"name": "cpu", "min_seconds": 0, "min_rounds": 36, "relative_ci": 0.5},
        evaluations=3,
        name="photos",
        settings={
            "runs": tmp_path / "runs",
            "data.grayscale": True,
            "latency_predictor.samples": 4,
            "search.lookahead": 2,
            "search.adaptive_measurement.measurements": 0,
            "search.algorithm.initial": 2,
            "evaluation.recipe.epochs": 1,
            "finalise.recipe.epochs": 1,
            "finalise.limit": 1,
        },
    )
    assert study.status == "finalised"
    folder, difference = study.export("knee", tmp_path / "out")
    assert (folder / "model.onnx").is_file()
    assert difference < 1e-3
