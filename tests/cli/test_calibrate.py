"""`nas calibrate`: a predictor by itself, with the settings of a search."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nas_command import SMALL, Ended

import latency_predictors

Here = Callable[..., Ended]

SETTINGS = (
    *SMALL,
    "latency_predictor.samples=6",
    "latency_predictor.seconds_per_sample=0.05",
)
CANDIDATES = "latency_predictor.candidates=[macs,gaussian_process]"


def test_a_predictor_is_calibrated_compared_and_saved(here: Here, tmp_path: Path) -> None:
    first = here("calibrate", *SETTINGS, CANDIDATES)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs" / "predictors" / "mobilenet-cpu"
    predictor = latency_predictors.load(folder)
    compared = dict(predictor.compared)
    assert set(compared) == {"macs", "gaussian_process"}
    for name, error in compared.items():
        assert any(name in x and f"{100 * error:.1f} %" in x for x in first.stdout.splitlines())
    assert f"chosen: {min(compared, key=compared.__getitem__)}" in first.stdout
    assert "images of 1 x 8 x 8 and 10 classes" in first.stdout  # those of the data
    assert re.search(r"6 networks measured; \d+\.\d min in all", first.stdout)
    assert "95 % interval is ±" in first.stdout
    assert "measured a second time" in first.stdout
    samples = json.loads((folder / "calibration.json").read_text())["samples"]
    genotypes = [tuple(sample["genotype"]) for sample in samples]
    assert np.isfinite(predictor.predict(genotypes).mean_ms).all()

    second = here("calibrate", *SETTINGS, CANDIDATES, "out=there")
    assert second.returncode == 0, second.stderr
    assert "0 networks measured, 6 had been measured before" in second.stdout
    assert (tmp_path / "there" / "predictor.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("search_space.input_shape=[3,16,16]",), "search_space.num_classes: got None"),
        (("search_space.num_classes=3", "search_space.input_shape=3"), "input_shape: got 3"),
        (("latency_predictor.samples=1",), "latency_predictor.samples: got 1"),
        (("outt=x",), "configuration: got 'outt'"),
    ],
)
def test_what_cannot_work_is_refused(here: Here, arguments: tuple[str, ...], expected: str) -> None:
    ended = here("calibrate", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert expected in ended.stderr


def test_without_data_the_settings_say_what_images_are(here: Here, tmp_path: Path) -> None:
    shape = ("search_space.input_shape=[3,16,16]", "search_space.num_classes=7")
    ended = here("calibrate", *SETTINGS, *shape, "latency_predictor=macs", "data=npz")
    assert ended.returncode == 0, ended.stderr
    assert "images of 3 x 16 x 16 and 7 classes" in ended.stdout
    record = json.loads((tmp_path / "runs/predictors/mobilenet-cpu/predictor.json").read_text())
    assert record["space"]["input_shape"] == [3, 16, 16]
