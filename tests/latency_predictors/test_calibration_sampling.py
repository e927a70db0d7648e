from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_device import SyntheticDevice, latencies_ms

import search_spaces
from latency_predictors import get
from latency_predictors.calibration.sampling import choose, measure_samples, save_samples
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace


def test_chosen_are_distinct_and_span_the_space(space: SearchSpace):
    chosen = choose(space, 30, seed=0)
    assert len(chosen) == len(set(chosen)) == 30
    assert all(space.canonical(genotype) == genotype for genotype in chosen)
    assert chosen[0] == (0,) * len(space.genes)
    assert chosen[1] == tuple(n - 1 for n in space.cardinalities)


def test_the_choice_repeats_with_its_seed_and_grows_with_the_number(space: SearchSpace):
    assert choose(space, 20, seed=3) == choose(space, 20, seed=3)
    assert choose(space, 30, seed=3)[:20] == choose(space, 20, seed=3)
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


def test_samples_are_the_networks_that_were_chosen(space: SearchSpace, tmp_path: Path):
    device = SyntheticDevice()
    genotypes, measurements = measure_samples(
        space, device, get("gaussian_process", samples=6), seed=2
    )
    assert genotypes == choose(space, 6, seed=2)
    expected = latencies_ms(space, genotypes)
    assert [m.latency_ms for m in measurements] == pytest.approx(expected)
    save_samples(tmp_path / "new", genotypes, measurements)
    samples = json.loads((tmp_path / "new" / "calibration.json").read_text())["samples"]
    assert [tuple(sample["genotype"]) for sample in samples] == genotypes
    assert [sample["latency_ms"] for sample in samples] == pytest.approx(expected)
    assert len(samples[0]["samples_ms"]) == 3
