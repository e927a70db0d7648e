"""What every latency predictor must keep; a new one is tested because it is registered."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau
from synthetic_device import SyntheticDevice, latencies_ms

import latency_predictors
from latency_predictors import PredictorSettings
from latency_predictors.calibration.sampling import choose
from nas.core.errors import ConfigError, UnknownNameError
from nas.core.prediction import LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace

SAMPLES = 24


@pytest.fixture(scope="module", params=latency_predictors.names())
def settings(request: pytest.FixtureRequest, sources: tuple[str, ...]) -> PredictorSettings:
    fields = dataclasses.fields(latency_predictors.component(request.param))  # type: ignore[arg-type]
    given = {"sources": sources} if "sources" in {field.name for field in fields} else {}
    return latency_predictors.get(request.param, samples=SAMPLES, **given)


@pytest.fixture(scope="module")
def predictor(settings: PredictorSettings, space: SearchSpace) -> LatencyPredictor:
    genotypes = choose(space, SAMPLES, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return settings.fit(space, genotypes, latencies_ms(space, genotypes, noise=0.01))


def test_predictions_are_positive_with_an_uncertainty(
    predictor: LatencyPredictor, unseen: list[Genotype]
):
    prediction = predictor.predict(unseen)
    assert prediction.mean_ms.shape == prediction.std_ms.shape == (len(unseen),)
    assert np.isfinite(prediction.mean_ms).all()
    assert (prediction.mean_ms > 0).all()
    assert (prediction.std_ms > 0).all()


def test_predictions_rank_architectures(
    predictor: LatencyPredictor, space: SearchSpace, unseen: list[Genotype]
):
    truth = latencies_ms(space, unseen)
    predicted = predictor.predict(unseen).mean_ms
    assert kendalltau(predicted, truth).statistic > 0.9
    assert np.abs(predicted / truth - 1).mean() < 0.05


def test_the_uncertainty_is_of_the_size_of_the_mistakes(
    predictor: LatencyPredictor, space: SearchSpace, unseen: list[Genotype]
):
    prediction = predictor.predict(unseen)
    mistakes = (prediction.mean_ms - latencies_ms(space, unseen)) / prediction.std_ms
    assert 0.2 < np.sqrt(np.mean(mistakes**2)) < 3


def test_one_prediction_is_what_it_is_among_many(
    predictor: LatencyPredictor, unseen: list[Genotype]
):
    together = predictor.predict(unseen)
    for i in (0, 7):
        alone = predictor.predict([unseen[i]])
        np.testing.assert_allclose(alone.mean_ms[0], together.mean_ms[i], rtol=1e-9)
        np.testing.assert_allclose(alone.std_ms[0], together.std_ms[i], rtol=1e-6)


def test_equal_measurements_give_equal_predictors(
    settings: PredictorSettings,
    predictor: LatencyPredictor,
    space: SearchSpace,
    unseen: list[Genotype],
):
    genotypes = choose(space, SAMPLES, seed=0)
    again = settings.fit(space, genotypes, latencies_ms(space, genotypes, noise=0.01))
    np.testing.assert_array_equal(again.predict(unseen).mean_ms, predictor.predict(unseen).mean_ms)


def test_a_saved_predictor_predicts_the_same(
    predictor: LatencyPredictor, unseen: list[Genotype], tmp_path: Path
):
    predictor.save(tmp_path / "new" / "folder")
    loaded = latency_predictors.load(tmp_path / "new" / "folder")
    before, after = predictor.predict(unseen), loaded.predict(unseen)
    np.testing.assert_allclose(after.mean_ms, before.mean_ms, rtol=1e-9)
    np.testing.assert_allclose(after.std_ms, before.std_ms, rtol=1e-6)


def test_a_saved_predictor_is_arrays_and_json(predictor: LatencyPredictor, tmp_path: Path):
    predictor.save(tmp_path)
    predictor.save(tmp_path)  # over itself
    assert (tmp_path / "predictor.json").is_file()
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        else:
            assert path.suffix in (".npy", ".npz", ".safetensors")
    for path in tmp_path.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays)


def test_few_samples_suffice_to_fit(settings: PredictorSettings, space: SearchSpace):
    genotypes = choose(space, 4, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = settings.fit(space, genotypes, latencies_ms(space, genotypes))
    assert (fitted.predict(genotypes).mean_ms > 0).all()


def test_calibrate_measures_and_fits(
    settings: PredictorSettings, space: SearchSpace, unseen: list[Genotype]
):
    fields = latency_predictors.registry.settings(settings)
    device = SyntheticDevice()
    predictor = latency_predictors.calibrate(space, device, predictor=fields.pop("name"), **fields)
    assert len(device.measured) == SAMPLES
    truth = latencies_ms(space, unseen)
    assert np.abs(predictor.predict(unseen).mean_ms / truth - 1).mean() < 0.05


def test_too_few_samples_are_refused(settings: PredictorSettings):
    fields = latency_predictors.registry.settings(settings)
    with pytest.raises(ConfigError, match=r"latency_predictor\.samples: got 3, expected 4"):
        latency_predictors.get(**(fields | {"samples": 3}))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"space": 1}', "\x00"])
def test_a_folder_without_a_predictor_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "predictor.json").write_text(content)
    with pytest.raises(ConfigError, match="a folder with a saved predictor") as caught:
        latency_predictors.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_predictor_is_named(tmp_path: Path):
    (tmp_path / "predictor.json").write_text('{"predictor": "oracle"}')
    with pytest.raises(UnknownNameError, match="latency predictor: got 'oracle', expected one of"):
        latency_predictors.load(tmp_path)
