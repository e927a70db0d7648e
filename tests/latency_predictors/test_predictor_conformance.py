"""What every latency predictor must keep; a new one is tested because it is registered."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import kendalltau
from synthetic_device import SyntheticDevice, latencies_ms

import latency_predictors
import search_spaces
from latency_predictors import PredictorSettings
from latency_predictors.calibration.sampling import choose, measure_samples
from nas.core.errors import ConfigError, HwnasError
from nas.core.prediction import LatencyPredictor
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

SAMPLES = 24


class Expected(NamedTuple):
    """What a predictor reaches on networks that were not measured.

    Attributes:
        rank: Kendall's tau, at least.
        error: Mean relative error, at most.
    """

    rank: float
    error: float


BASELINE = Expected(0.8, 0.14)
EXPECTED = {
    # Kernels are what the prices are of.
    "auto": Expected(0.96, 0.03),
    "kernels": Expected(0.96, 0.03),
    # A block's price depends on the resolution and the shape of what it is given.
    "block_table": Expected(0.88, 0.09),
    "gaussian_process": Expected(0.85, 0.13),
    # 24 samples for the 43 columns of the genes, without their costs.
    "ridge": Expected(0.72, 0.22),
}
"""By name; of others, what the baseline of multiply-accumulate operations reaches."""


def make(name: str, sources: tuple[str, ...], **fields: Any) -> PredictorSettings:
    """Return the settings of a predictor under which these tests fit it.

    Args:
        name: Of the predictor.
        sources: Folders of predictors of other devices, for those that learn from them.
        **fields: Its settings.
    """
    component = latency_predictors.component(name)
    known = {field.name for field in dataclasses.fields(component)}
    given = {"sources": sources} if "sources" in known else {}
    return latency_predictors.get(name, **given, **fields)


def name_of(settings: PredictorSettings) -> str:
    name: str = latency_predictors.registry.settings(settings)["name"]
    return name


@pytest.fixture(scope="module", params=latency_predictors.names())
def settings(request: pytest.FixtureRequest, sources: tuple[str, ...]) -> PredictorSettings:
    return make(request.param, sources, samples=SAMPLES)


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
    settings: PredictorSettings,
    predictor: LatencyPredictor,
    space: SearchSpace,
    unseen: list[Genotype],
):
    truth = latencies_ms(space, unseen)
    predicted = predictor.predict(unseen).mean_ms
    expected = EXPECTED.get(name_of(settings), BASELINE)
    assert kendalltau(predicted, truth).statistic > expected.rank
    assert np.abs(predicted / truth - 1).mean() < expected.error


def test_intervals_cover_unseen_networks(
    predictor: LatencyPredictor, space: SearchSpace, unseen: list[Genotype]
):
    prediction = predictor.predict(unseen)
    assert prediction.scores.shape == (SAMPLES,)
    assert (np.diff(prediction.scores) >= 0).all()
    truth = latencies_ms(space, unseen)
    covered = []
    for coverage in (0.5, 0.8):
        low, high = prediction.interval_ms(coverage)
        assert (low >= 0).all()
        assert (high > low).all()
        covered.append(np.mean((low <= truth) & (truth <= high)))
    # 24 samples decide how wide intervals are, and 40 networks whether they cover: three standard
    # deviations of both together are 0.31 of a coverage of 0.8.
    assert covered[0] > 0.25
    assert covered[1] > 0.49
    assert covered[0] < covered[1]
    # So few samples cannot promise more.
    assert np.isinf(prediction.interval_ms(0.99)[1]).all()


def test_held_out_errors_are_of_the_size_of_the_mistakes(
    predictor: LatencyPredictor, space: SearchSpace, unseen: list[Genotype]
):
    errors = predictor.held_out_errors()
    assert errors.shape == (SAMPLES,)
    assert np.isfinite(errors).all()
    mistakes = predictor.predict(unseen).mean_ms / latencies_ms(space, unseen) - 1
    # Held-out samples are predicted from fewer, and the corners of the space are among them.
    assert np.median(np.abs(errors)) < 4 * np.median(np.abs(mistakes)) + 0.01
    assert np.median(np.abs(errors)) > np.median(np.abs(mistakes)) / 4


def test_one_prediction_is_what_it_is_among_many(
    predictor: LatencyPredictor, unseen: list[Genotype]
):
    together = predictor.predict(unseen)
    for i in (0, 7):
        alone = predictor.predict([unseen[i]])
        # Deviations of whole networks, some percent of a latency, have 32 bits.
        np.testing.assert_allclose(alone.mean_ms[0], together.mean_ms[i], rtol=1e-7)
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


@pytest.mark.parametrize("name", latency_predictors.names())
def test_calibrate_measures_and_fits(
    name: str, few_blocks: SearchSpace, few_sources: tuple[str, ...], tmp_path: Path
):
    device, store = SyntheticDevice(noise=0.005), MeasurementStore(tmp_path)
    settings = make(name, few_sources, samples=SAMPLES)
    genotypes, measurements = measure_samples(few_blocks, device, settings, 0, store)
    assert device.measured == SAMPLES
    fitted = settings.fit(few_blocks, genotypes, np.array([m.latency_ms for m in measurements]))
    rng = np.random.default_rng(98)
    unseen = [few_blocks.sample(rng) for _ in range(40)]
    truth = latencies_ms(few_blocks, unseen)
    error = EXPECTED.get(name, BASELINE).error
    assert np.abs(fitted.predict(unseen).mean_ms / truth - 1).mean() < error


def test_calibrate_is_both_in_one_call(few_blocks: SearchSpace, tmp_path: Path):
    device, store = SyntheticDevice(), MeasurementStore(tmp_path)
    fitted = latency_predictors.calibrate(
        few_blocks, device, samples=8, seed=1, predictor="macs", store=store
    )
    assert device.measured == store.counts.taken == 8
    genotypes, measurements = measure_samples(
        few_blocks, device, latency_predictors.get("macs", samples=8), 1, store
    )
    assert device.measured == 8
    again = latency_predictors.get("macs", samples=8).fit(
        few_blocks, genotypes, np.array([m.latency_ms for m in measurements])
    )
    np.testing.assert_array_equal(
        again.predict(genotypes).mean_ms, fitted.predict(genotypes).mean_ms
    )


@pytest.mark.parametrize("name", ["kernels", "block_table"])
def test_entangled_spaces_can_be_tabulated(name: str):
    # In cells of few genes every place depends on all of them.
    space = search_spaces.get(
        "nasbench201", input_shape=(3, 8, 8), num_classes=10, channels=8, cells_per_stage=2
    )
    rng = np.random.default_rng(0)
    genotypes = [space.sample(rng) for _ in range(8)]
    costs = space.costs(genotypes)
    latency_ms = 0.1 + costs["macs_m"].to_numpy() + 0.1 * costs["params_m"].to_numpy()
    fitted = latency_predictors.get(name).fit(space, genotypes, latency_ms)
    assert (fitted.predict(genotypes).mean_ms > 0).all()


def test_too_few_samples_are_refused(settings: PredictorSettings):
    with pytest.raises(ConfigError, match=r"latency_predictor\.samples: got 3, expected 4"):
        dataclasses.replace(settings, samples=3)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"space": 1}', "\x00"])
def test_a_folder_without_a_predictor_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "predictor.json").write_text(content)
    with pytest.raises(HwnasError) as caught:
        latency_predictors.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_predictor_is_named(tmp_path: Path):
    (tmp_path / "predictor.json").write_text('{"predictor": "oracle"}')
    with pytest.raises(HwnasError, match=r"predictor\.json: .*got 'oracle', expected one of"):
        latency_predictors.load(tmp_path)
