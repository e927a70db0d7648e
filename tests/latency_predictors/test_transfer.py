"""Few-shot transfer: what must hold, and what was published."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from synthetic_device import latencies_ms

import latency_predictors
import nas.devices
import search_spaces
from latency_predictors.calibration.few_shot import Columns, FewShotModel, design
from latency_predictors.calibration.sampling import choose, measure_samples
from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace
from nas.tables.nasbench201 import load_nasbench201

REFERENCES = "1080ti_1 1080ti_32 1080ti_256 silver_4114 silver_4210r samsung_a50 pixel3 samsung_s7"


def fit(
    space: SearchSpace,
    sources: Sequence[str],
    genotypes: Sequence[Genotype],
    latency_ms: FloatArray,
) -> LatencyPredictor:
    settings = latency_predictors.get("transfer", sources=tuple(sources))
    return settings.fit(space, genotypes, latency_ms)


@pytest.fixture(scope="module")
def genotypes(space: SearchSpace, sources: tuple[str, ...]) -> list[Genotype]:
    settings = latency_predictors.get("transfer", sources=sources, samples=12)
    return settings.first_samples(space, seed=0)


def test_a_device_like_a_source_is_predicted_as_the_source(
    space: SearchSpace,
    sources: tuple[str, ...],
    genotypes: list[Genotype],
    unseen: list[Genotype],
):
    for folder in sources:
        source = latency_predictors.load(folder)
        known = source.predict(genotypes).mean_ms
        prediction = fit(space, sources, genotypes, known).predict(unseen)
        np.testing.assert_allclose(prediction.mean_ms, source.predict(unseen).mean_ms, rtol=0.01)


def test_latencies_scale(
    space: SearchSpace,
    sources: tuple[str, ...],
    genotypes: list[Genotype],
    unseen: list[Genotype],
):
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    one, many = (fit(space, sources, genotypes, k * latency_ms).predict(unseen) for k in (1, 1000))
    np.testing.assert_allclose(1000 * one.mean_ms, many.mean_ms, rtol=1e-6)
    np.testing.assert_allclose(1000 * one.std_ms, many.std_ms, rtol=1e-4)


def test_the_order_of_sources_and_of_samples_changes_nothing(
    space: SearchSpace,
    sources: tuple[str, ...],
    genotypes: list[Genotype],
    unseen: list[Genotype],
):
    latency_ms = latencies_ms(space, genotypes, noise=0.01)
    expected = fit(space, sources, genotypes, latency_ms).predict(unseen)
    for order in (
        fit(space, sources[::-1], genotypes, latency_ms),
        fit(space, sources, genotypes[::-1], latency_ms[::-1]),
    ):
        np.testing.assert_allclose(order.predict(unseen).mean_ms, expected.mean_ms, rtol=1e-6)
    reordered = latency_predictors.get("transfer", sources=sources[::-1], samples=12)
    assert reordered.first_samples(space, seed=0) == genotypes


def test_more_samples_predict_better(
    space: SearchSpace, sources: tuple[str, ...], unseen: list[Genotype]
):
    truth = latencies_ms(space, unseen)
    mistakes = []
    for samples in (4, 10, 20, 80):
        settings = latency_predictors.get("transfer", sources=sources, samples=samples)
        chosen = settings.first_samples(space, seed=0)
        predictor = settings.fit(space, chosen, latencies_ms(space, chosen, noise=0.003))
        mistakes.append(np.abs(predictor.predict(unseen).mean_ms / truth - 1).mean())
    assert all(more < 1.2 * fewer for fewer, more in pairwise(mistakes))
    assert mistakes[1] < 0.05
    assert mistakes[-1] < mistakes[0] / 2


def test_it_beats_what_knows_no_other_device(
    space: SearchSpace,
    sources: tuple[str, ...],
    unseen: list[Genotype],
):
    truth = latencies_ms(space, unseen)
    spread = choose(space, 10, seed=0)
    measured = latencies_ms(space, spread, noise=0.01)
    alone = latency_predictors.get("ridge").fit(space, spread, measured)
    helped = fit(space, sources, spread, measured)
    error = {
        name: np.abs(predictor.predict(unseen).mean_ms / truth - 1).mean()
        for name, predictor in {"alone": alone, "helped": helped}.items()
    }
    assert error["helped"] < error["alone"] / 2


def test_all_samples_are_chosen_before_any_is_measured(
    space: SearchSpace, sources: tuple[str, ...]
):
    settings = latency_predictors.get(
        "transfer", sources=sources, samples=5, seconds_per_sample=0.02
    )
    measured, _ = measure_samples(space, nas.devices.get("cpu"), settings, seed=3)
    assert measured == settings.first_samples(space, seed=3)
    assert len(set(measured)) == 5
    assert measured != settings.first_samples(space, seed=4)


def test_a_saved_predictor_needs_its_sources_no_more(
    space: SearchSpace,
    sources: tuple[str, ...],
    genotypes: list[Genotype],
    unseen: list[Genotype],
    tmp_path: Path,
):
    copies = [str(shutil.copytree(folder, tmp_path / Path(folder).name)) for folder in sources]
    predictor = fit(space, copies, genotypes, latencies_ms(space, genotypes))
    predictor.save(tmp_path / "saved")
    for copy in copies:
        shutil.rmtree(copy)
    loaded = latency_predictors.load(tmp_path / "saved")
    before, after = predictor.predict(unseen), loaded.predict(unseen)
    np.testing.assert_allclose(after.mean_ms, before.mean_ms, rtol=1e-9)


def test_it_can_be_a_source_itself(
    space: SearchSpace,
    sources: tuple[str, ...],
    genotypes: list[Genotype],
    unseen: list[Genotype],
    tmp_path: Path,
):
    latency_ms = latencies_ms(space, genotypes)
    first = fit(space, sources, genotypes, latency_ms)
    first.save(tmp_path)
    again = fit(space, (str(tmp_path),), genotypes, latency_ms)
    truth = latencies_ms(space, unseen)
    errors = [np.abs(p.predict(unseen).mean_ms / truth - 1).mean() for p in (first, again)]
    assert errors[1] < 1.1 * errors[0] + 0.005


def test_no_source_is_refused():
    with pytest.raises(ConfigError, match=r"latency_predictor\.sources: got \[\], expected one"):
        latency_predictors.get("transfer", sources=[])
    with pytest.raises(ConfigError, match="a value for 'sources'"):
        latency_predictors.get("transfer")


@pytest.mark.parametrize("broken", ["missing", "predictor.json", "predictor.npz"])
def test_a_folder_that_cannot_be_read_is_refused(
    space: SearchSpace, sources: tuple[str, ...], tmp_path: Path, broken: str
):
    folder = tmp_path / "source"
    if broken != "missing":
        shutil.copytree(sources[0], folder)
        (folder / broken).write_text("nothing")
    settings = latency_predictors.get("transfer", sources=(sources[1], str(folder)))
    for use in (
        lambda: settings.first_samples(space, 0),
        lambda: settings.fit(space, choose(space, 4, 0), np.ones(4)),
    ):
        with pytest.raises(
            ConfigError, match=r"latency_predictor\.sources: got .*source'"
        ) as error:
            use()
        assert "\n" not in str(error.value)


def test_a_source_of_another_space_is_refused(
    space: SearchSpace, sources: tuple[str, ...], tmp_path: Path
):
    other = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    genotypes = choose(other, 5, seed=0)
    latency_predictors.get("ridge").fit(other, genotypes, np.arange(1.0, 6)).save(tmp_path)
    settings = latency_predictors.get("transfer", sources=(*sources, str(tmp_path)))
    with pytest.raises(ConfigError, match=r"name is nasbench201.*name is mobilenet") as error:
        settings.first_samples(space, 0)
    assert "\n" not in str(error.value)


def test_columns_of_a_constant_source_and_of_an_unused_choice_carry_nothing():
    rng = np.random.default_rng(0)
    one_hot = np.eye(4)[rng.integers(0, 3, 50)]
    devices_ms = np.stack([np.full(50, 2.0), rng.uniform(1, 2, 50)], 1)
    columns = Columns.of(devices_ms, one_hot, one_hot)
    rows = columns(devices_ms, one_hot, one_hot)
    assert rows.shape == (50, 1 + 1 + 2 + 4 + 4)
    np.testing.assert_allclose(rows[:, 1:].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_array_equal(rows[:, [2, 7, 11]], 0)
    chosen = design(columns, rows, 5)
    assert len(set(chosen)) == 5
    prediction = FewShotModel.fit(columns, rows[chosen], devices_ms[chosen, 1])(rows)
    np.testing.assert_allclose(prediction[:, 0], devices_ms[:, 1], rtol=0.02)


def test_additive_devices_of_nasbench201_follow_from_ten_cells():
    """Reference devices at full measurement; HELP has 0.985 (fpga) and 0.940 (eyeriss)."""
    table = load_nasbench201()
    devices = table["lat_devices"].tolist()
    latency_ms = table["lat_ms"].astype(float)
    choices = (table["ops"][:, :, None] == np.arange(5)).astype(float)
    one_hot, counts = choices.reshape(len(choices), -1), choices.sum(axis=1)
    references = latency_ms[:, [devices.index(name) for name in REFERENCES.split()]]
    columns = Columns.of(references, counts, one_hot)
    rows = columns(references, counts, one_hot)
    for device, published in (("fpga", 0.985), ("eyeriss", 0.940)):
        truth = latency_ms[:, devices.index(device)]
        for draw in range(2):
            pool = np.random.default_rng(draw).choice(len(rows), 300, replace=False)
            chosen = pool[design(columns, rows[pool], 10)]
            predicted = FewShotModel.fit(columns, rows[chosen], truth[chosen])(rows)[:, 0]
            assert spearmanr(predicted, truth).statistic > published
