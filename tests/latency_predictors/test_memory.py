"""Predicted peak memory: what it keeps, with real networks in real processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nas.devices
import search_spaces
from latency_predictors.calibration.memory import PeakMemory, measured_memory
from latency_predictors.calibration.sampling import choose, measure_genotypes
from nas.core.measurement import Measurement
from nas.core.space import Genotype
from nas.network.space import SearchSpace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return search_spaces.get("vit", input_shape=(3, 32, 32), num_classes=10)


@pytest.fixture(scope="module")
def genotypes(space: SearchSpace) -> list[Genotype]:
    return choose(space, 24, seed=0)


@pytest.fixture(scope="module")
def measurements(space: SearchSpace, genotypes: list[Genotype]) -> list[Measurement]:
    device = nas.devices.get("cpu", max_seconds_per_model=0.01, warmup_seconds=0.01)
    return measure_genotypes(space, device, genotypes, seconds=0.01, memory=True)


@pytest.fixture(scope="module")
def predictor(
    space: SearchSpace, genotypes: list[Genotype], measurements: list[Measurement]
) -> PeakMemory:
    return PeakMemory.fit(space, genotypes, measurements)


def test_running_adds_to_what_loading_takes(measurements: list[Measurement]) -> None:
    assert measured_memory(measurements)
    for measured in measurements:
        assert measured.loading_memory_mb is not None
        assert measured.peak_memory_mb is not None
        assert 0 < measured.loading_memory_mb <= measured.peak_memory_mb


def test_samples_are_predicted_from_the_others(
    predictor: PeakMemory, measurements: list[Measurement]
) -> None:
    """The errors are well below those of a guess that knows no network: the others' median."""
    peak_mb = np.array([measured.peak_memory_mb for measured in measurements], float)
    others_mb = [np.median(np.delete(peak_mb, index)) for index in range(len(peak_mb))]
    guess = np.median(np.abs(others_mb / peak_mb - 1))
    assert np.median(np.abs(predictor.held_out_errors())) < guess / 2


def test_a_saved_predictor_predicts_the_same(
    predictor: PeakMemory, space: SearchSpace, tmp_path: Path
) -> None:
    fresh = space.samples(50, np.random.default_rng(1))
    predictor.save(tmp_path)
    loaded = PeakMemory.load(tmp_path)
    assert loaded.predict_mb(fresh) == pytest.approx(predictor.predict_mb(fresh))
    assert loaded.held_out_errors() == pytest.approx(predictor.held_out_errors())


def test_a_device_that_cannot_tell_is_noticed(measurements: list[Measurement]) -> None:
    record = measurements[0].to_dict()
    unknown = Measurement.from_dict(record | {"peak_memory_mb": None, "loading_memory_mb": None})
    assert not measured_memory([*measurements, unknown])
