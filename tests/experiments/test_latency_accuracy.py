"""The figures of the experiments on predictors, on latencies that are known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import evaluation
import numpy as np
import pandas as pd
import pytest
from _shared.accuracy import SPACES, arguments, coverage_percent
from evaluation import COMPARED, AccuracySettings, evaluate, learning_curve, measure, near_front
from synthetic_device import SyntheticDevice, latencies_ms

import latency_predictors
from latency_predictors.calibration.accuracy import scores
from nas.core.errors import UnknownNameError
from nas.core.prediction import Prediction
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace


def test_scores_are_shares_of_relative_errors():
    measured = np.array([100.0, 200.0, 300.0, 400.0, 500.0])
    predicted = measured * [1.0, 1.04, 0.94, 1.09, 0.8]
    found = scores(predicted, measured)
    assert found == pytest.approx(
        {
            "within_5_percent": 40,
            "within_10_percent": 80,
            "median_error_percent": 6,
            "largest_error_percent": 20,
            "spearman": 0.9,  # 436 and 400 in the wrong order: 1 - 6 * 2 / (5 * 24)
        }
    )


def test_coverage_counts_what_lies_in_the_interval():
    # Of scores 1 to 9 the intervals of 50 % are 5 standard deviations wide.
    prediction = Prediction(np.full(4, 10.0), np.full(4, 0.2), np.arange(1.0, 10.0))
    assert coverage_percent(prediction, np.array([9.1, 10.9, 11.1, 8.0]), 0.5) == 50
    assert coverage_percent(prediction, np.array([9.1, 10.9, 11.1, 8.0]), 0.99) == 100


def dominated(space: SearchSpace, genotypes: list[Genotype], others: list[Genotype]) -> float:
    """Return the share for which another network has more MACs in less time."""

    def both(of: list[Genotype]) -> tuple[np.ndarray, np.ndarray]:
        return space.costs(of)["macs_m"].to_numpy()[:, None], latencies_ms(space, of)[:, None]

    (macs, latency_ms), (other_macs, other_ms) = both(genotypes), both(others)
    worse = (macs <= other_macs.T) & (latency_ms > other_ms.T)
    return float(worse.any(axis=1).mean())


@pytest.fixture
def short_evolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "GENERATIONS", 10)
    monkeypatch.setattr(evaluation, "POPULATION", 128)


@pytest.mark.usefixtures("short_evolution")
def test_networks_near_the_front_are_seldom_dominated(space: SearchSpace):
    rng = np.random.default_rng(0)
    known, random, others = ([space.sample(rng) for _ in range(n)] for n in (40, 30, 300))
    settings = latency_predictors.get("kernels")
    predictor = settings.fit(space, known, latencies_ms(space, known))
    found = near_front(space, predictor, 30, np.random.default_rng(1))
    assert 20 < len(found) == len(set(found)) <= 30
    assert all(space.canonical(genotype) == genotype for genotype in found)
    assert dominated(space, found, others) < dominated(space, random, others) / 2
    latency_ms = latencies_ms(space, found)
    assert latency_ms.max() > 2 * latency_ms.min()  # all along it
    assert near_front(space, predictor, 30, np.random.default_rng(1)) == found


def test_a_learning_curve_has_a_row_for_every_fit(space: SearchSpace):
    rng = np.random.default_rng(2)
    pool, held_out = ([space.sample(rng) for _ in range(n)] for n in (40, 50))
    measured = latencies_ms(space, pool, noise=0.01)
    truth = latencies_ms(space, held_out)
    curve = partial(learning_curve, space, (pool, measured), (held_out, truth), draws=1, seed=3)
    table = curve(sizes=(10, 40, 41))
    # There are no 41 networks.
    assert sorted(table["samples"].unique()) == [10, 40]
    assert len(table) == 2 * len(COMPARED)
    assert set(table["predictor"]) == set(COMPARED)
    assert table.notna().all(axis=None)
    errors = table.pivot_table("median_error_percent", "predictor", "samples")
    assert (errors.loc["kernels"] < errors.loc["macs"]).all()
    assert errors.loc["kernels", 40] < min(errors.loc["kernels", 10], 2)
    assert table["coverage_percent"].between(0, 100).all()


TINY: dict[str, Any] = {
    "samples": 8,
    "held_out": 10,
    "near_front": 4,
    "extra": 4,
    "quadruples": 2,
    "sizes": (8,),
    "draws": 1,
}


@pytest.mark.usefixtures("short_evolution")
def test_a_predictor_is_held_against_fresh_measurements(
    few_blocks: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluation, "SPEED_GENOTYPES", 2000)
    device, steps = SyntheticDevice(), []

    def run() -> evaluation.AccuracyReport:
        predictor = latency_predictors.get("ridge", samples=TINY["samples"])
        store = MeasurementStore(tmp_path)
        settings = AccuracySettings(**TINY)
        return evaluate(measure(few_blocks, device, predictor, store, settings, steps.append))

    report = run()
    assert len(steps) == 5
    summary = report.summary
    # The device has no noise, so both measurements are equal.
    assert summary["noise_ceiling"]["within_5_percent"] == 100
    assert summary["noise_p95_percent"] == 0
    assert summary["held_out"] == summary["held_out_against_one_measurement"]
    # Prices are sums, but for what one choice does to the shapes that another block reads.
    assert summary["additivity"]["median_percent"] < 10
    networks = report.networks
    parts = networks["part"].value_counts()
    assert (parts["held out"], parts["calibration"]) == (10, 8)
    assert 1 <= parts["near the front"] <= 4
    held_out = networks[networks["part"] == "held out"]
    assert scores(
        held_out["latency_ms_predicted"].to_numpy(), held_out["latency_ms_measured"].to_numpy()
    ) == pytest.approx(summary["held_out"])
    genotypes = [tuple(map(int, text.split())) for text in held_out["genotype"]]
    calibration = networks[networks["part"] == "calibration"]["genotype"]
    assert not set(held_out["genotype"]) & set(calibration)
    assert held_out["latency_ms_measured"].to_numpy() == pytest.approx(
        latencies_ms(few_blocks, genotypes)
    )
    measured = device.measured
    again = run()
    assert device.measured == measured  # all of it was kept
    assert again.summary["held_out"] == summary["held_out"]


def test_predicted_peak_memory_is_held_against_fresh_measurements(
    few_blocks: SearchSpace, tmp_path: Path, memory_script: ModuleType
):
    compare = memory_script.compare
    device, store = SyntheticDevice(), MeasurementStore(tmp_path)
    settings = memory_script.MemorySettings(samples=12, held_out=10, repeated=4)
    found = compare(few_blocks, device, store, settings, lambda step: None)
    # The device has no noise.
    assert found["repeated"]["largest_error_percent"] == 0
    assert found["predicted"]["spearman"] > 0.5
    low, middle, high = found["peak_memory_mb"]
    assert low < middle < high
    assert found["file"]["median_percent"] < found["file"]["largest_percent"]
    measured = device.measured
    assert compare(few_blocks, device, store, settings, lambda step: None) == found
    assert device.measured == measured


@pytest.mark.slow
@pytest.mark.usefixtures("short_evolution")
def test_the_experiment_on_a_real_device(
    predictor_script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(evaluation, "SPEED_GENOTYPES", 2000)
    small = {"resolutions": (8,), "widths": (1.0,), "stage_channels": (16, 24)}
    fields = {"input_shape": (1, 8, 8), "num_classes": 10, "stage_strides": (1, 2), "max_depth": 2}
    monkeypatch.setitem(SPACES, "mobilenet", small | fields)
    settings = AccuracySettings(**TINY, seconds=0.02)
    predictor_script.run(["mobilenet"], "cpu", tmp_path, settings)
    printed = capsys.readouterr().out
    for word in ("fresh networks", "second measurement of them", "near the front", "Spearman"):
        assert word in printed
    assert (tmp_path / "tables.md").read_text("utf-8").strip() in printed
    assert (tmp_path / "accuracy.png").is_file()
    networks = pd.read_csv(tmp_path / "mobilenet_networks.csv")
    assert (networks["latency_ms_measured"] > 0).all()


def test_an_unknown_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["run.py", "mobilenet", "resnet"])
    with pytest.raises(UnknownNameError, match="resnet"):
        arguments("about", tmp_path)
