from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from latency_predictors.calibration.features import features, layer_kinds
from synthetic_device import latencies_ms

import latency_predictors
from latency_predictors.calibration.sampling import choose
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace


def test_features_are_sums_over_layers(space: SearchSpace):
    genotypes = choose(space, 5, seed=0)
    kinds = layer_kinds(space, genotypes)
    table = features(space, genotypes, kinds)
    assert kinds == sorted(set(kinds))
    assert table.shape == (5, 3 * len(kinds))
    for row, genotype in zip(table, genotypes, strict=True):
        costs = space.count(genotype)
        occurrences, macs, moved = row[0::3], row[1::3], row[2::3]
        assert occurrences.sum() == len(costs.layers)
        assert macs.sum() == costs.macs
        layers = costs.layers
        assert moved.sum() == sum(x.input_values + x.output_values + x.params for x in layers)
        assert occurrences[kinds.index("conv1")] == [x.kind for x in layers].count("conv1")


def test_layers_of_other_kinds_are_left_out(space: SearchSpace):
    genotypes = choose(space, 3, seed=0)
    assert features(space, genotypes, ["linear"]).shape == (3, 3)
    assert features(space, genotypes, []).shape == (3, 0)


def test_more_samples_predict_better(space: SearchSpace, unseen: list[tuple[int, ...]]):
    truth = latencies_ms(space, unseen)
    mistakes = []
    for samples in (6, 60):
        genotypes = choose(space, samples, seed=0)
        settings = latency_predictors.get("gaussian_process", samples=samples)
        predictor = settings.fit(space, genotypes, latencies_ms(space, genotypes, noise=0.01))
        mistakes.append(np.abs(predictor.predict(unseen).mean_ms / truth - 1).mean())
    assert mistakes[1] < min(mistakes[0] / 2, 0.02)


def test_leaving_one_out_tells_of_unseen_networks(
    space: SearchSpace, unseen: list[tuple[int, ...]]
):
    genotypes = choose(space, 40, seed=0)
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    predictor = latency_predictors.get("gaussian_process").fit(space, genotypes, latency_ms)
    left_out = predictor.leave_one_out()
    truth = latencies_ms(space, unseen)
    mistakes = np.abs(predictor.predict(unseen).mean_ms / truth - 1)
    assert left_out.shape == (40,)
    assert np.median(mistakes) / 3 < np.median(np.abs(left_out)) < 3 * np.median(mistakes) + 0.02
    # In the samples themselves the predictor sees what leaving out hides.
    fitted = np.abs(predictor.predict(genotypes).mean_ms / latency_ms - 1)
    assert np.abs(left_out).mean() > fitted.mean()


@pytest.mark.parametrize("samples", [4, 8, 16, 40])
@pytest.mark.parametrize("noise", [0.0, 0.005, 0.1])
def test_fits_end_without_warnings(space: SearchSpace, samples: int, noise: float):
    genotypes = choose(space, samples, seed=1)
    latency_ms = latencies_ms(space, genotypes, noise=noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = latency_predictors.get("gaussian_process").fit(space, genotypes, latency_ms)
        assert (predictor.predict(genotypes).std_ms > 0).all()


def test_equal_latencies_are_predicted_as_they_are(space: SearchSpace, unseen: list):
    genotypes = choose(space, 8, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = latency_predictors.get("gaussian_process").fit(
            space, genotypes, np.full(8, 0.5)
        )
    np.testing.assert_allclose(predictor.predict(unseen).mean_ms, 0.5, rtol=1e-6)


def test_latencies_scale(space: SearchSpace, unseen: list):
    genotypes = choose(space, 16, seed=0)
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    settings = latency_predictors.get("gaussian_process")
    one, thousand = (settings.fit(space, genotypes, k * latency_ms) for k in (1, 1000))
    small, large = one.predict(unseen), thousand.predict(unseen)
    np.testing.assert_allclose(1000 * small.mean_ms, large.mean_ms, rtol=1e-6)
    np.testing.assert_allclose(1000 * small.std_ms, large.std_ms, rtol=1e-4)


def test_a_predictor_of_layers_that_are_counted_otherwise_today(space: SearchSpace, tmp_path: Path):
    genotypes = choose(space, 4, seed=0)
    settings = latency_predictors.get("gaussian_process")
    settings.fit(space, genotypes, latencies_ms(space, genotypes)).save(tmp_path)
    file = tmp_path / "predictor.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"layer_kinds": ["lstm", *record["layer_kinds"]]}))
    with pytest.raises(ConfigError, match=r"got \['lstm', .*; calibrate it again"):
        latency_predictors.load(tmp_path)


def test_no_noise_is_refused():
    with pytest.raises(ConfigError, match=r"latency_predictor\.relative_noise: got 0, expected"):
        latency_predictors.get("gaussian_process", relative_noise=0)
