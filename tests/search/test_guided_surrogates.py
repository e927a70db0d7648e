"""Features, models and the expected improvement that guided search is made of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from _shared.tabular import TabularBenchmark
from bases import required
from scipy.optimize import approx_fprime
from scipy.stats import spearmanr

import search_spaces
from nas import tables
from nas.core.space import Gene
from nas.network.blocks import Block, Choices
from nas.network.space import SearchSpace
from nas.results.hypervolume import hypervolume
from nas.search.problem import Scored
from nas.search.surrogates.expected_improvement import (
    Boxes,
    expected_improvement,
    log_expected_improvement,
    thresholds,
)
from nas.search.surrogates.features import Features, Group, cell_columns
from nas.search.surrogates.gaussian_process import (
    Covariance,
    GaussianProcess,
    _LogPosterior,
)
from nas.search.surrogates.scores import ScoredFeatures
from nas.search.surrogates.surrogate import Scale, Surrogate, representative, stacked_share


def sample(n: int, p: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


GROUPS = (Group("first", slice(0, 1)), Group("second", slice(1, 4)))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_expected_improvement_is_what_sampling_gives(objectives: int):
    """Two of the objectives are unknown, where there are as many; the others are known."""
    rng = np.random.default_rng(objectives)
    front, reference = rng.random((6, objectives)), 0.8 + 0.4 * rng.random(objectives)
    mean = 0.7 * rng.random((4, objectives))
    std = np.zeros_like(mean)
    std[:, :2] = 0.1 + 0.1 * rng.random(std[:, :2].shape)
    before = hypervolume(front, reference)
    draws = rng.normal(size=(2000, objectives))
    sampled = [
        [hypervolume([*front, m + s * draw], reference) - before for draw in draws]
        for m, s in zip(mean, std, strict=True)
    ]
    exact = expected_improvement(front, reference, mean, std)
    error = np.std(sampled, axis=1) / np.sqrt(len(draws))
    tolerance = 4 * error + (0.03 * exact if objectives > 3 else 0)
    assert (np.abs(exact - np.mean(sampled, axis=1)) < tolerance + 1e-12).all()


@pytest.mark.parametrize("decimals", [1, 9], ids=["ties", "no ties"])
def test_boxes_fill_what_the_front_leaves_open(decimals: int):
    rng = np.random.default_rng(decimals)
    for points in (0, 1, 2, 30):
        front = np.round(1.2 * rng.random((points, 3)), decimals)
        reference, start = np.array([1.0, 0.8, 1.1]), np.array([0.2, 0.1])
        boxes = Boxes.open_over(front, reference, start)
        assert len(boxes.least) <= 3 * points + 1
        assert (boxes.low < boxes.high).all()
        places = start + rng.random((500, 2)) * (reference[1:] - start)
        at = (boxes.low <= places[:, None]) & (places[:, None] < boxes.high)
        covering = at.all(axis=2)
        assert (covering.sum(axis=1) == 1).all()
        least = boxes.least[covering.argmax(axis=1)]
        np.testing.assert_array_equal(least, thresholds(front, 1.0, places))
        best = [min([1.0, *front[(front[:, 1:] <= place).all(axis=1), 0]]) for place in places]
        np.testing.assert_array_equal(least, best)


def test_what_can_hardly_improve_is_ranked_by_how_far_it_is_from_it():
    front, reference = np.array([[0.5, 0.2], [0.2, 0.5]]), np.ones(2)
    mean = np.array([[0.1, 0.6], [0.3, 0.6], [0.4, 0.6], [0.1, 1.2]])
    std = np.array([[0.01, 0.0]] * 4)
    scores = log_expected_improvement(front, reference, mean, std)
    assert (np.diff(scores) < 0).all()
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(np.log(0.1 * 0.4))


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_where_nothing_can_improve_candidates_are_still_ranked(objectives: int):
    """Beyond the reference point, or by more than five deviations of luck."""
    front, reference = np.full((1, objectives), 0.2), np.ones(objectives)
    mean = np.full((3, objectives), 0.5)
    mean[:, 0] = [0.9, 0.8, 0.95]
    std = np.zeros_like(mean)
    std[:, 0] = 0.01
    scores = log_expected_improvement(front, reference, mean, std)
    assert scores.argsort().tolist() == [2, 0, 1]


def test_the_gradient_of_the_posterior_is_right():
    inputs = np.column_stack([sample(20), np.repeat([0.0, 0.9], 10)])
    posterior = _LogPosterior(GROUPS, inputs, sample(20, 1)[:, 0])
    at = posterior.medians + sample(1, 6, seed=1)[0] / 3
    value, gradient = posterior.negative(at)
    numeric = approx_fprime(at, lambda x: posterior.negative(x)[0], 1e-6)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-3)


def test_predictions_that_were_kept_are_those_made_anew():
    covariance = Covariance(GROUPS, np.array([1.0, 2.0]), 1.0, 0.3, 0.1, 0.5)
    inputs = np.column_stack([sample(30), np.repeat([0.0, 0.9, 0.5], 10)])
    values = np.sin(inputs.sum(axis=1))
    rows = None
    for n in (10, 11, 12, 30):
        process = GaussianProcess(covariance, inputs[:n], values[:n])
        rows = process.rows(inputs, rows)
        kept, anew = process.predict(inputs, rows), process.predict(inputs)
        np.testing.assert_allclose(kept, anew, atol=1e-5)


def test_the_process_is_the_textbook_s_one():
    covariance = Covariance(GROUPS, np.array([1.0, 2.0]), 1.0, 0.3, 0.1, 0.5)
    inputs, at = (np.column_stack([sample(n, seed=n), np.zeros(n)]) for n in (12, 5))
    values = inputs[:, 0]
    mean, variance = GaussianProcess(covariance, inputs, values).predict(at)
    gram = covariance(inputs, inputs) + covariance.noise * np.eye(12)
    across = covariance(at, inputs)
    np.testing.assert_allclose(mean, across @ np.linalg.solve(gram, values), rtol=1e-5)
    prior = np.diag(covariance(at, at)) + covariance.noise
    explained = (across * np.linalg.solve(gram, across.T).T).sum(axis=1)
    np.testing.assert_allclose(variance, prior - explained, atol=1e-6)


def test_what_is_under_evaluation_lowers_the_variance_as_its_result_will():
    covariance = Covariance(GROUPS, np.array([1.0, 2.0]), 1.0, 0.3, 0.1, 0.5)
    inputs = np.column_stack([sample(20), np.zeros(20)])
    before = GaussianProcess(covariance, inputs[:10], inputs[:10, 0])
    expecting = GaussianProcess(covariance, inputs[:10], inputs[:10, 0], inputs[10:13])
    after = GaussianProcess(covariance, inputs[:13], inputs[:13, 0])
    np.testing.assert_allclose(expecting.predict(inputs)[1], after.predict(inputs)[1], atol=1e-6)
    np.testing.assert_allclose(expecting.predict(inputs)[0], before.predict(inputs)[0], atol=1e-6)


def test_outliers_and_zeros_stay_finite_on_the_scale():
    scale = Scale.of(np.array([0.0, 8.0, 9.0, 9.5, 10.0, 11.0, 90.0]))
    scaled = scale(np.array([0.0, 9.0, 30.0, 90.0]))
    assert np.isfinite(scaled).all()
    assert scaled[0] < scaled[1] < scaled[2] == scaled[3]
    assert scale.ceiling == 11.0
    assert Scale.of(np.array([-1.0, 0.0, 2.0])).shift is None


def test_the_trees_share_follows_what_is_learned():
    """A plane is the process's own; a step in one of its features is the trees'."""
    features = sample(120)
    plane, step = Surrogate(GROUPS), Surrogate(GROUPS)
    plane.learn(features, np.ones(120), 30 + features.sum(axis=1), features[:0])
    step.learn(features, np.ones(120), np.where(features[:, 2] > 0, 20.0, 10.0), features[:0])
    assert plane.trees_share < 0.2 < 0.5 < step.trees_share


def test_a_stack_errs_no_more_than_its_members():
    values, first, second = sample(100, 3).T
    assert stacked_share(values, values, second) == 0.0
    assert stacked_share(values, first, values) == 1.0
    share = stacked_share(values, first, second)
    assert 0 < share < 1
    squares = [((first + at * (second - first) - values) ** 2).sum() for at in (0.0, share, 1.0)]
    assert squares[1] < min(squares[0], squares[2])


def test_short_trainings_teach_what_full_ones_are_worth():
    features = sample(60)
    worth = features[:, 0] + np.sin(2 * features[:, 1])
    full = np.arange(60) < 6
    values = np.exp(np.where(full, worth / 4, worth / 5 + 1.0))
    surrogate = Surrogate(GROUPS)
    surrogate.learn(features, np.where(full, 1.0, 0.1), values, features[:0])
    mean, _ = surrogate.predict(features)
    assert np.corrcoef(mean, worth)[0, 1] > 0.95
    assert abs(np.mean(mean - surrogate.scale(np.exp(worth / 4)))) < 0.2


def test_representative_trials_are_the_best_and_some_of_all():
    values = np.random.default_rng(0).permutation(1000).astype(float)
    chosen = values[representative(values, 100)]
    assert len(chosen) == 100
    assert set(range(50)) <= set(chosen)
    assert chosen.max() == 999


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_space_has_features(name: str):
    images = {"input_shape": (3, 32, 32), "num_classes": 10}
    space = search_spaces.get(name, **images, **required(name, (3, 32, 32), 10))
    features = Features(space)
    genotypes = space.samples(1000, np.random.default_rng(1))
    started = time.process_time()
    described = features(genotypes)
    assert time.process_time() - started < 1.0
    assert np.isfinite(described).all()
    assert len(described) == 1000
    assert features.groups[-1].columns.stop == described.shape[1]
    told_apart = len(np.unique(described.round(6), axis=0))
    assert told_apart > 0.75 * len(np.unique(genotypes, axis=0))  # cells with equal live parts
    np.testing.assert_array_equal(features(genotypes[:3]), described[:3])


@dataclass(frozen=True, kw_only=True)
class Renamed(SearchSpace):
    """Another space whose genes have other names."""

    space: SearchSpace

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(replace(gene, name=f"g{i}") for i, gene in enumerate(self.space.genes))

    def blocks(self) -> Iterator[Block]:
        names = {gene.name: f"g{i}" for i, gene in enumerate(self.space.genes)}

        class Translated:
            def __init__(self, chosen: Choices) -> None:
                self.chosen = chosen

            def __getitem__(self, name: str) -> Any:
                return self.chosen[names[name]]

        for block in self.space.blocks():
            yield replace(block, choose=lambda chosen, b=block: b.choose(Translated(chosen)))


@pytest.mark.parametrize("name", ["mobilenet", "vit"])
def test_names_of_genes_are_no_features(name: str):
    space = search_spaces.get(name, input_shape=(3, 32, 32), num_classes=10)
    renamed = Renamed(input_shape=(3, 32, 32), num_classes=10, space=space)
    genotypes = space.samples(50, np.random.default_rng(1))
    features = Features(space)
    assert {group.name for group in features.groups} == {"genes", "kinds", "size"}
    assert np.array_equal(Features(renamed)(genotypes), features(genotypes))
    by_kind = next(group.columns for group in features.groups if group.name == "kinds")
    by_gene = next(group.columns for group in features.groups if group.name == "genes")
    assert by_kind.stop - by_kind.start < by_gene.stop - by_gene.start


def test_dead_edges_and_names_of_nodes_are_not_seen_on_paths():
    """Nobody reads the second node of the first pair; the cells of the second are renamed."""
    space = search_spaces.get(
        "nasbench201", input_shape=(3, 32, 32), num_classes=10, merge_equal=False
    )
    features = Features(space)
    same = [((3, 2, 1, 3, 1, 0), (3, 0, 4, 3, 1, 0)), ((3, 2, 0, 1, 2, 3), (2, 3, 0, 1, 3, 2))]
    for group in features.groups:
        if group.name in ("cell.paths", "cell.windows", "cell.norm"):
            for pair in same:
                first, second = features(pair)[:, group.columns]
                np.testing.assert_allclose(first, second)


def test_genes_that_the_cells_do_not_show_are_features():
    """The channels and the number of cells of DARTS."""
    space = search_spaces.get("darts", input_shape=(3, 32, 32), num_classes=10)
    features = Features(space)
    first = space.samples(1, np.random.default_rng(0))
    for gene in ("channels", "cells_per_stage"):
        second = first.copy()
        i = [gene.name for gene in space.genes].index(gene)
        second[:, i] = (second[:, i] + 1) % 3
        assert not np.allclose(features(first), features(second))


def test_path_norms_follow_from_the_gains_of_operations():
    """In the residual cell, with 16 channels: 1 + (16 * 9)^2, a skip and two convolutions."""
    space = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    residual = space.matrix([space.references()["residual"]])
    cell = space.encode_graphs(residual)
    norm = cell_columns(space, cell)["norm"]
    assert norm == pytest.approx(np.log(1 + (16 * 9) ** 2))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16"])
def test_path_norms_rank_the_published_cells(dataset: str):
    """Better than synaptic flow (Abdelfattah et al., ICLR 2021, table 1: 0.74, 0.76, 0.75)."""
    table = TabularBenchmark.load("nasbench201", dataset, ["pixel3"])
    space = table.problem.space
    every = table.table.genotypes
    norm = cell_columns(space, space.encode_graphs(every))["norm"][:, 0]
    assert spearmanr(norm, table.table.error(dataset, 200)).statistic < -0.76


def test_a_small_space_is_enumerated_and_a_large_one_is_not():
    space = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    assert len(space.every(20_000)) == space.size
    assert space.every(10_000) is None
    sample = tables.get("accel_nasbench")
    spaces = [
        search_spaces.get("mnasnet", input_shape=(3, 64, 64), num_classes=10, **settings)
        for settings in (sample.space_settings, {})
    ]
    assert np.array_equal(spaces[0].every(10_000), np.unique(sample.genotypes, axis=0))
    assert spaces[0].every(1_000) is spaces[1].every(10_000) is None


def test_what_a_proxy_says_of_other_networks_is_predicted():
    space = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    table = tables.get("nasbench201")
    rng = np.random.default_rng(0)
    every = space.canonicalise(np.asarray(table.genotypes))
    order = rng.permutation(len(every))[:400]
    # The published errors stand for a proxy that is as good as can be; the other score is noise.
    told = -np.asarray(table.error("cifar10", 200), float)[order]
    scores = np.stack([told, rng.normal(size=len(order))], axis=1)
    plain = Features(space)
    features = ScoredFeatures(plain, Scored(every[order[:120]], scores[:120]))
    columns = features(every[order])
    assert columns.shape[1] == plain(every[:1]).shape[1] + 2
    assert features.groups[-1] == Group("scores", slice(columns.shape[1] - 2, columns.shape[1]))
    assert spearmanr(columns[120:, -2], told[120:]).statistic > 0.8
    assert features([]).shape == (0, columns.shape[1])
    # Less errs where the proxy is known, though half of its scores are noise.
    correlations = []
    for described in (plain, features):
        surrogate = Surrogate(described.groups)
        inputs = described(every[order])
        surrogate.learn(inputs[120:132], np.ones(12), -told[120:132], inputs[:0])
        predicted, _ = surrogate.predict(inputs[132:])
        correlations.append(spearmanr(predicted, -told[132:]).statistic)
    assert correlations[1] > correlations[0]
