from __future__ import annotations

import numpy as np

from latency_predictors.calibration.process import TOTALS, NetworkDeviation

SAMPLES = np.array([[1.0, 20.0, 0.5], [3.0, 40.0, 2.0], [10.0, 90.0, 8.0]])
"""Totals of three networks."""

AMPLITUDE = 0.05


def of_samples(length: float = 0.1) -> NetworkDeviation:
    """Return a deviation whose samples are too far apart to know of each other."""
    lengths = np.full(len(TOTALS), length)
    unscaled = NetworkDeviation(np.zeros(3), lengths, np.zeros((0, 3)), np.zeros(0), AMPLITUDE)
    samples, weights = unscaled.scaled(SAMPLES), np.array([0.02, -0.01, 0.03])
    return NetworkDeviation(np.zeros(3), lengths, samples, weights, AMPLITUDE)


def test_at_a_sample_it_is_what_was_measured():
    deviations, unsure = of_samples()(SAMPLES)
    np.testing.assert_allclose(deviations, [0.02, -0.01, 0.03], rtol=1e-4)
    np.testing.assert_allclose(unsure, 0, atol=1e-4 * AMPLITUDE)


def test_far_from_all_samples_it_is_nothing_and_unsure():
    deviations, unsure = of_samples()(np.array([[1e3, 1e4, 1e4], [1e-3, 1.0, 1e-3]]))
    np.testing.assert_allclose(deviations, 0, atol=1e-12)
    np.testing.assert_allclose(unsure, AMPLITUDE, rtol=1e-6)


def test_between_samples_it_is_smooth_and_grows_unsure():
    some = of_samples(length=1.0)
    away = np.exp(np.linspace(0, 4, 50))
    deviations, unsure = some(SAMPLES[:1] / away[:, None])
    assert (np.diff(unsure) >= 0).all()
    assert np.abs(np.diff(deviations)).max() < 0.005
    assert ((unsure >= 0) & (unsure <= AMPLITUDE * (1 + 1e-6))).all()


def test_it_is_the_mean_of_a_squared_exponential():
    some = of_samples(length=2.0)
    totals = np.random.default_rng(0).uniform(0.5, 20, (30, 3))
    distances = np.linalg.norm(some.scaled(totals)[:, None] - some.samples, axis=-1)
    expected = np.exp(-0.5 * distances**2) @ some.weights
    np.testing.assert_allclose(some(totals)[0], expected, atol=1e-6)


def test_networks_that_are_sums_do_not_deviate():
    deviations, unsure = NetworkDeviation.none()(SAMPLES)
    assert deviations.tolist() == unsure.tolist() == [0, 0, 0]


def test_totals_of_nothing_are_no_error():
    assert all(np.isfinite(values).all() for values in of_samples()(np.zeros((2, 3))))
