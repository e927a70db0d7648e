"""Latencies of parts, learned from sums that were planted."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

import latency_predictors
from latency_predictors.additive import BLOCK_WIDTHS, PartsPredictor
from latency_predictors.calibration.fusion import Kernel
from latency_predictors.calibration.parts import PartTable, blocks, kernels
from latency_predictors.calibration.process import PartProcess, roofline_error
from latency_predictors.calibration.roofline import RooflineFeatures, roofline_rates
from nas.core.prediction import FloatArray, Prediction
from nas.core.space import Genotype
from nas.network.space import SearchSpace

SAMPLES = 60


def planted_ms(parts: PartTable, deviation: float = 0.1) -> FloatArray:
    """Return latencies of parts that deviate from a price list, each by its own share."""
    # Whatever the order in which the parts were met.
    order = sorted(range(len(parts.parts)), key=lambda i: astuple(parts.parts[i]))
    shares = np.empty(len(order))
    shares[order] = np.random.default_rng(0).standard_normal(len(order))
    return np.array([price(part) for part in parts.parts]) * np.exp(deviation * shares)


def price(part: Kernel) -> float:
    call = 2e-3 if part.kind.startswith("depthwise") else 1e-3
    traffic = part.input_values + part.output_values
    return call + 4e-8 * part.macs + 1e-7 * traffic + 1e-7 * part.params


def draw(space: SearchSpace, n: int, seed: int) -> list[Genotype]:
    return [tuple(row) for row in space.samples(n, np.random.default_rng(seed)).tolist()]


@pytest.fixture(scope="module")
def parts(space: SearchSpace) -> PartTable:
    table = kernels(space, 16)
    table.find(space.samples(20_000, np.random.default_rng(0)))  # meets all of them
    return table


@pytest.fixture(scope="module")
def counts(parts: PartTable, space: SearchSpace) -> FloatArray:
    return parts.counts(draw(space, SAMPLES, 1))


@pytest.fixture(scope="module")
def unseen(parts: PartTable, space: SearchSpace) -> FloatArray:
    return parts.counts(draw(space, 100, 2))


def predict(process: PartProcess, of: FloatArray, counts: FloatArray, ms: FloatArray) -> FloatArray:
    learned = process.fit(counts, ms)
    return learned.networks(of @ learned.columns)


@pytest.mark.parametrize("shared", [True, False])
def test_sums_of_planted_latencies_are_recovered(
    shared: bool, parts: PartTable, counts: FloatArray, unseen: FloatArray
):
    planted = planted_ms(parts)
    process = PartProcess(parts.parts, shared=shared)
    mean_ms, std_ms = predict(process, unseen, counts, counts @ planted).T
    errors = np.abs(mean_ms / (unseen @ planted) - 1)
    assert np.median(errors) < 0.015
    assert errors.max() < 0.1
    assert (std_ms > 0).all()
    # In the samples themselves there is nothing left but a measurement's noise.
    fitted, _ = predict(process, counts, counts, counts @ planted).T
    np.testing.assert_allclose(fitted, counts @ planted, rtol=0.02)


def test_price_lists_are_rooflines(parts: PartTable, counts: FloatArray, unseen: FloatArray):
    planted = planted_ms(parts, deviation=0)
    features = RooflineFeatures(parts.parts)(parts.parts)
    found = features @ roofline_rates(features, counts, counts @ planted)
    np.testing.assert_allclose(unseen @ found, unseen @ planted, rtol=0.03)
    assert (found >= 0).all()
    assert roofline_error(parts.parts, counts, counts @ planted) < 0.02


def test_latencies_scale(parts: PartTable, counts: FloatArray, unseen: FloatArray):
    latency_ms = counts @ planted_ms(parts)
    small = predict(PartProcess(parts.parts), unseen, counts, latency_ms)
    large = predict(PartProcess(parts.parts), unseen, counts, 1000 * latency_ms)
    np.testing.assert_allclose(large[:, 0], 1000 * small[:, 0], rtol=1e-3)
    np.testing.assert_allclose(large[:, 1], 1000 * small[:, 1], rtol=0.05)


def test_the_order_of_samples_makes_no_difference(
    parts: PartTable, counts: FloatArray, unseen: FloatArray
):
    latency_ms = counts @ planted_ms(parts)
    order = np.random.default_rng(3).permutation(len(counts))
    process = PartProcess(parts.parts)
    straight = predict(process, unseen, counts, latency_ms)
    fixed = process.fit(counts, latency_ms).hyperparameters
    learned = process.condition(fixed, counts[order], latency_ms[order])
    shuffled = learned.networks(unseen @ learned.columns)
    np.testing.assert_allclose(shuffled, straight, rtol=1e-5, atol=1e-7)
    refitted = predict(PartProcess(parts.parts), unseen, counts[order], latency_ms[order])
    np.testing.assert_allclose(refitted[:, 0], straight[:, 0], rtol=1e-3)


def test_conditioning_is_the_fit_under_known_hyperparameters(
    parts: PartTable, counts: FloatArray, unseen: FloatArray
):
    latency_ms = counts @ planted_ms(parts)
    process = PartProcess(parts.parts)
    fitted = process.fit(counts, latency_ms)
    learned = PartProcess(parts.parts).condition(fitted.hyperparameters, counts, latency_ms)
    np.testing.assert_array_equal(
        learned.networks(unseen @ learned.columns), fitted.networks(unseen @ fitted.columns)
    )


@pytest.mark.parametrize("name", ["kernels", "block_table"])
def test_one_more_sample_moves_its_own_prediction(name: str, space: SearchSpace):
    split = {"kernels": kernels(space, 16), "block_table": blocks(space)}[name]
    genotypes = draw(space, SAMPLES + 1, 4)
    latency_ms = split.counts(genotypes) @ planted_ms(split)
    latency_ms[-1] *= 1.1  # no sum of parts that were measured
    settings = latency_predictors.get(name)
    before = settings.fit(space, genotypes[:-1], latency_ms[:-1])
    after = settings.refit(before, space, genotypes, latency_ms)
    errors = [
        abs(predictor.predict(genotypes[-1:]).mean_ms[0] / latency_ms[-1] - 1)
        for predictor in (before, after)
    ]
    assert errors[0] > 0.04
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("width", BLOCK_WIDTHS)
def test_samples_tell_the_width_of_a_block(width: int, space: SearchSpace):
    genotypes = draw(space, SAMPLES, 5)
    parts = kernels(space, width)
    # Rooflines of widths 1 and 8 differ by 0.07 % here: most channels are multiples of 8.
    latency_ms = parts.counts(genotypes) @ planted_ms(parts, deviation=0.001)
    fitted = latency_predictors.get("kernels").fit(space, genotypes, latency_ms)
    assert isinstance(fitted, PartsPredictor)
    assert fitted.width == width


def test_intervals_cover_as_often_as_they_say(space: SearchSpace, parts: PartTable):
    planted = planted_ms(parts)
    covered: dict[float, list[float]] = {0.5: [], 0.8: [], 0.9: []}
    for seed in range(4):
        rng = np.random.default_rng([6, seed])
        known, new = draw(space, 40, 10 + seed), draw(space, 200, 20 + seed)
        known_ms, new_ms = (
            parts.counts(g) @ planted * np.exp(0.03 * rng.standard_normal(len(g)))
            for g in (known, new)
        )
        prediction = latency_predictors.get("kernels").fit(space, known, known_ms).predict(new)
        for coverage, shares in covered.items():
            low, high = prediction.interval_ms(coverage)
            assert (low >= 0).all()
            assert (low < high).all()
            shares.append(float(np.mean((low <= new_ms) & (new_ms <= high))))
    for coverage, shares in covered.items():
        assert abs(np.mean(shares) - coverage) < 0.1


def test_intervals_are_the_quantiles_of_the_scores():
    # Vovk 2013: the k-th of n scores with k = ceil((n + 1) * coverage).
    scores = np.arange(1.0, 10.0)
    prediction = Prediction(np.array([100.0, 1.0]), np.array([2.0, 1.0]), scores)
    low, high = prediction.interval_ms(0.5)
    assert (low.tolist(), high.tolist()) == ([90.0, 0.0], [110.0, 6.0])
    low, high = prediction.interval_ms(0.9)
    assert high.tolist() == [118.0, 10.0]
    assert np.isinf(prediction.interval_ms(0.91)[1]).all()
    assert np.isinf(Prediction(np.ones(1), np.ones(1)).interval_ms()[1]).all()
