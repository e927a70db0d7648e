from __future__ import annotations

import warnings

import numpy as np
import pytest
from synthetic_device import latencies_ms

import latency_predictors
from latency_predictors.calibration.sampling import choose
from latency_predictors.regression import EncodingRegression
from nas.core.space import Genotype
from nas.network.space import SearchSpace


def test_it_sees_costs_and_genes_and_nothing_else(space: SearchSpace):
    genotypes = choose(space, 8, seed=0)
    predictor = EncodingRegression(space, genotypes, latencies_ms(space, genotypes))
    features = predictor.features(space.matrix(genotypes))
    costs = space.costs(genotypes).to_numpy()
    columns = costs.shape[1]
    np.testing.assert_array_equal(features[:, :columns], costs)
    np.testing.assert_allclose(np.exp(features[:, columns : 2 * columns]), costs)
    np.testing.assert_array_equal(features[:, 2 * columns :], space.one_hot(genotypes))


def test_more_samples_predict_better(space: SearchSpace, unseen: list[Genotype]):
    truth = latencies_ms(space, unseen)
    mistakes = []
    for samples in (6, 60):
        genotypes = choose(space, samples, seed=0)
        settings = latency_predictors.get("gaussian_process", samples=samples)
        predictor = settings.fit(space, genotypes, latencies_ms(space, genotypes, noise=0.01))
        mistakes.append(np.abs(predictor.predict(unseen).mean_ms / truth - 1).mean())
    # Genes and costs do not tell what a layer of each kind takes.
    assert mistakes[1] < min(mistakes[0] / 2, 0.09)


def test_held_out_errors_tell_of_unseen_networks(space: SearchSpace, unseen: list[Genotype]):
    genotypes = choose(space, 40, seed=0)
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    predictor = latency_predictors.get("gaussian_process").fit(space, genotypes, latency_ms)
    held_out = np.abs(predictor.held_out_errors())
    mistakes = np.abs(predictor.predict(unseen).mean_ms / latencies_ms(space, unseen) - 1)
    assert held_out.shape == (40,)
    assert np.median(mistakes) / 3 < np.median(held_out) < 3 * np.median(mistakes) + 0.02
    # In the samples themselves the predictor sees what holding out hides.
    fitted = np.abs(predictor.predict(genotypes).mean_ms / latency_ms - 1)
    assert held_out.mean() > fitted.mean()


@pytest.mark.parametrize("samples", [4, 8, 40])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_fits_end_without_warnings(space: SearchSpace, samples: int, noise: float):
    genotypes = choose(space, samples, seed=1)
    latency_ms = latencies_ms(space, genotypes, noise=noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = latency_predictors.get("gaussian_process").fit(space, genotypes, latency_ms)
        assert (predictor.predict(genotypes).std_ms > 0).all()


def test_equal_latencies_are_predicted_as_they_are(space: SearchSpace, unseen: list[Genotype]):
    genotypes = choose(space, 8, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = latency_predictors.get("gaussian_process").fit(
            space, genotypes, np.full(8, 0.5)
        )
    np.testing.assert_allclose(predictor.predict(unseen).mean_ms, 0.5, rtol=1e-6)


def test_latencies_scale(space: SearchSpace, unseen: list[Genotype]):
    genotypes = choose(space, 16, seed=0)
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    settings = latency_predictors.get("gaussian_process")
    one, thousand = (settings.fit(space, genotypes, k * latency_ms) for k in (1, 1000))
    small, large = one.predict(unseen), thousand.predict(unseen)
    np.testing.assert_allclose(1000 * small.mean_ms, large.mean_ms, rtol=1e-6)
    np.testing.assert_allclose(1000 * small.std_ms, large.std_ms, rtol=1e-4)


def test_more_samples_leave_the_covariance_as_it_was(space: SearchSpace):
    genotypes = choose(space, 20, seed=0)
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    settings = latency_predictors.get("gaussian_process")
    first = settings.fit(space, genotypes[:16], latency_ms[:16])
    second = settings.refit(first, space, genotypes, latency_ms)
    assert isinstance(first, EncodingRegression)
    assert isinstance(second, EncodingRegression)
    np.testing.assert_array_equal(second.process.kernel_.theta, first.process.kernel_.theta)
