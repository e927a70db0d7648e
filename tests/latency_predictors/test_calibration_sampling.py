from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import SyntheticDevice, latencies_ms

import search_spaces
from latency_predictors import get
from latency_predictors.calibration.sampling import (
    choose,
    measure_genotypes,
    measure_samples,
    samples_within,
    save_samples,
)
from nas.core.errors import ConfigError
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace


def test_chosen_are_distinct_and_span_the_space(space: SearchSpace):
    chosen = choose(space, 30, seed=0)
    assert len(chosen) == len(set(chosen)) == 30
    assert all(space.canonical(genotype) == genotype for genotype in chosen)
    assert chosen[0] == (0,) * len(space.genes)
    assert chosen[1] == space.canonical([n - 1 for n in space.cardinalities])


def test_chosen_are_spread_over_the_arithmetic(space: SearchSpace):
    samples = 30
    drawn = space.samples(2000, np.random.default_rng(5))
    macs = np.sort(space.costs(drawn)["macs_m"].to_numpy())
    chosen = space.costs(choose(space, samples, seed=0))["macs_m"].to_numpy()
    # One in each of equal parts, so neighbours are at most two parts apart; 1 for the draws.
    shares = np.sort(np.searchsorted(macs, chosen)) / len(macs)
    assert np.diff(shares).max() < 3 / samples


def test_the_choice_repeats_with_its_seed(space: SearchSpace):
    assert choose(space, 20, seed=3) == choose(space, 20, seed=3)
    assert choose(space, 20, seed=4)[2:] != choose(space, 20, seed=3)[2:]


def test_more_samples_than_architectures_are_refused():
    tiny = search_spaces.get(
        "mobilenet",
        input_shape=(1, 8, 8),
        num_classes=2,
        resolutions=(8,),
        widths=(1.0,),
        kernels=(3,),
        expansions=(2, 4),
        activations=("relu6",),
        stage_channels=(8,),
        stage_strides=(1,),
        max_depth=1,
    )
    assert len(choose(tiny, 4, seed=0)) == 4
    with pytest.raises(ConfigError, match=r"samples: got 5, expected at most the 4 architectures"):
        choose(tiny, 5, seed=0)
    with pytest.raises(ConfigError, match=r"samples: got 6, expected at most the 4 architectures"):
        measure_samples(tiny, SyntheticDevice(), get("ridge", samples=6), seed=0)


def test_some_samples_are_spread_and_a_first_fit_chooses_the_rest(
    few_blocks: SearchSpace, tmp_path: Path
):
    settings, device = get("gaussian_process", samples=16), SyntheticDevice()
    genotypes, measurements = measure_samples(few_blocks, device, settings, seed=2)
    assert len(genotypes) == len(set(genotypes)) == device.measured == 16
    assert all(few_blocks.canonical(genotype) == genotype for genotype in genotypes)
    spread = choose(few_blocks, 10, seed=2)
    assert genotypes[:10] == spread
    expected = latencies_ms(few_blocks, genotypes)
    assert [m.latency_ms for m in measurements] == pytest.approx(expected)

    first = settings.fit(few_blocks, spread, expected[:10])
    random = few_blocks.samples(400, np.random.default_rng(7))
    unsure, usual = (
        np.median(prediction.std_ms / prediction.mean_ms)
        for prediction in (first.predict(genotypes[10:]), first.predict(random))
    )
    assert unsure > usual

    save_samples(tmp_path / "new", few_blocks, genotypes, measurements, {"networks": 16})
    record = json.loads((tmp_path / "new" / "calibration.json").read_text())
    assert record["cost"] == {"networks": 16}
    samples = record["samples"]
    assert [tuple(sample["genotype"]) for sample in samples] == genotypes
    assert [sample["latency_ms"] for sample in samples] == pytest.approx(expected)
    assert len(samples[0]["samples_ms"]) == 3


def test_a_limit_of_time_decides_how_many_samples_there_are(few_blocks: SearchSpace):
    settings = get("gaussian_process", samples=16)
    assert samples_within(settings, 0.0) == 4
    assert samples_within(settings, 10.0, each_s=1.0) == 10
    assert samples_within(settings, 100.0, each_s=1.0) == 16
    # This device takes no time, so that what is measured first leaves room for all.
    for limit_s, number in ((20.0, 16), (1e-9, 4)):
        genotypes, _ = measure_samples(few_blocks, SyntheticDevice(), settings, 0, limit_s=limit_s)
        assert len(genotypes) == len(set(genotypes)) == number


def test_what_a_store_holds_is_not_measured_again(few_blocks: SearchSpace, tmp_path: Path):
    device, store = SyntheticDevice(noise=0.1), MeasurementStore(tmp_path)
    first, second, third = choose(few_blocks, 4, seed=0)[:3]
    told: list[int] = []

    def tell(done: int, now: str) -> None:
        if not now:
            told.append(done)

    taken = measure_genotypes(few_blocks, device, [first, second], store=store, on_progress=tell)
    again = measure_genotypes(
        few_blocks, device, [third, second, first], store=store, on_progress=tell
    )
    assert told == [0, 2, 2, 3]
    assert device.measured == 3
    assert [again[2].latency_ms, again[1].latency_ms] == [m.latency_ms for m in taken]
    # Memory was not asked for, so it is not known.
    (with_memory,) = measure_genotypes(few_blocks, device, [first], memory=True, store=store)
    assert with_memory.peak_memory_mb is not None
    assert device.measured == 4


def test_a_file_and_its_layers_cost_the_same(few_blocks: SearchSpace):
    # The tests compare predictions with the layers' prices, and devices are given files.
    genotypes = choose(few_blocks, 6, seed=1)
    measurements = measure_genotypes(few_blocks, SyntheticDevice(), genotypes)
    expected = latencies_ms(few_blocks, genotypes)
    assert [m.latency_ms for m in measurements] == pytest.approx(expected)
