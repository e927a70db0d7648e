"""Calibrations in portions, and predictors that learn from networks measured later."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

import latency_predictors
import search_spaces
from latency_predictors.calibration import sampling
from nas.core.errors import ConfigError, DeviceError
from nas.core.measurement import Device, ImageArray, Measurement
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

PREDICTORS = ("auto", "block_table", "gaussian_process", "kernels", "macs", "ridge")
FEWER = {"auto": {"candidates": ("block_table", "macs")}}


@pytest.fixture(scope="module")
def cells() -> SearchSpace:
    """A space of few blocks, so that its networks are soon written."""
    small = {"channels": 4, "cells_per_stage": 1}
    return search_spaces.get("nasbench201", input_shape=(1, 8, 8), num_classes=10, **small)


@dataclass
class CountingDevice(Device):
    """A file's latency is that of its weights and calls; fails from the n-th network on."""

    fails_from: int = 10**6
    portions: list[int] = field(default_factory=list)

    def prepare(
        self,
        models: Sequence[object],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[Path]:
        return [Path(str(model)) for model in models]

    def measure_files(
        self,
        files: Sequence[Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        if sum(self.portions) + len(files) > self.fails_from:
            raise DeviceError("unplugged")
        self.portions.append(len(files))
        return [
            Measurement(
                samples_ms=(latency_ms(file),) * 3,
                relative_ci=0.01,
                peak_memory_mb=None,
                protocol={},
                device={},
                environment={},
            )
            for file in files
        ]

    def outputs(self, file: Path, batches: Iterable[ImageArray]) -> Iterator[ImageArray]:
        raise DeviceError("a made-up device only has latencies")

    def identity(self) -> dict[str, object]:
        return {"name": "counting"}


def latency_ms(file: Path) -> float:
    graph = onnx.load(str(file)).graph
    weights = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    return 0.01 + 1e-3 * len(graph.node) + 1e-6 * weights


def samples_of(space: SearchSpace, n: int) -> tuple[list[Genotype], FloatArray]:
    rng = np.random.default_rng(3)
    genotypes = [space.sample(rng) for _ in range(n)]
    costs = space.costs(genotypes)
    latencies = 0.02 + 0.05 * costs["macs_m"].to_numpy() + 0.1 * costs["params_m"].to_numpy()
    return genotypes, latencies * np.exp(0.02 * rng.standard_normal(n))


def test_a_calibration_that_was_cut_off_loses_at_most_a_portion(
    cells: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PORTION", 6)
    settings = latency_predictors.get("macs", samples=20)

    def calibrate(device: Device, store: MeasurementStore | None) -> list[Genotype]:
        return sampling.measure_samples(cells, device, settings, 1, store)[0]

    whole = CountingDevice()
    expected = calibrate(whole, None)
    assert whole.portions == [12, 8]  # nothing keeps them, so all are interleaved
    failing = CountingDevice(fails_from=14)
    with pytest.raises(DeviceError):
        calibrate(failing, MeasurementStore(tmp_path))
    assert failing.portions == [6, 6]
    store, again = MeasurementStore(tmp_path), CountingDevice()
    assert calibrate(again, store) == expected
    assert again.portions == [4, 4]
    assert (store.counts.taken, store.counts.reused) == (8, 12)
    third = CountingDevice()
    calibrate(third, MeasurementStore(tmp_path))
    assert third.portions == []


def test_samples_are_read_as_they_were_written(cells: SearchSpace, tmp_path: Path) -> None:
    settings = latency_predictors.get("macs", samples=6)
    genotypes, measurements = sampling.measure_samples(cells, CountingDevice(), settings, 0)
    sampling.save_samples(tmp_path, cells, genotypes, measurements, {"measured": 6})
    read, latencies, cost = sampling.load_samples(tmp_path, cells)
    assert (read, cost) == (genotypes, {"measured": 6})
    assert latencies.tolist() == [m.latency_ms for m in measurements]
    other = dataclasses.replace(cells, input_shape=(1, 9, 9))
    with pytest.raises(ConfigError, match="search_space"):
        sampling.load_samples(tmp_path, other)


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_predictor_comes_nearer_to_what_it_learns(
    name: str, space: SearchSpace, tmp_path: Path
) -> None:
    genotypes, latencies = samples_of(space, 24)
    settings = latency_predictors.get(name, **FEWER.get(name, {}))
    first = settings.fit(space, genotypes[:20], latencies[:20])
    first.save(tmp_path)
    loaded = latency_predictors.load(tmp_path)
    learned = settings.refit(first, space, genotypes, latencies)

    def error(predictor: object) -> float:
        means = predictor.predict(genotypes[20:]).mean_ms  # type: ignore[attr-defined]
        return float(np.abs(means / latencies[20:] - 1).mean())

    assert error(learned) < error(first)
    assert learned.compared == first.compared
    # A search that goes on learns from the saved predictor, and must come to the same.
    again = settings.refit(loaded, space, genotypes, latencies).predict(genotypes)
    assert np.array_equal(again.mean_ms, learned.predict(genotypes).mean_ms)
    assert np.array_equal(again.std_ms, learned.predict(genotypes).std_ms)
