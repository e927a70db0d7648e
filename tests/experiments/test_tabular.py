"""A table as a search problem in memory, against what is published of it."""

from __future__ import annotations

import numpy as np
import pytest
from _shared.tabular import TabularBenchmark

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.results.hypervolume import non_dominated
from nas.search import algorithms

OPTIMAL = {"pixel3": 50, "raspi4": 57, "fpga": 15, "2080ti_256": 45, "gold_6226": 43}
"""Architectures on the front of CIFAR-10 validation error and latency."""


@pytest.fixture(scope="module")
def benchmark() -> TabularBenchmark:
    return TabularBenchmark.load("nasbench201", "cifar10", ["pixel3", "raspi4"])


def genotype(benchmark: TabularBenchmark, row: int) -> Genotype:
    return tuple(benchmark.table.genotypes[row].tolist())


@pytest.mark.parametrize("device", OPTIMAL)
def test_as_many_architectures_are_optimal_as_published(device: str):
    points = TabularBenchmark.load("nasbench201", "cifar10", [device]).points()
    assert points.shape == (15625, 2)
    assert non_dominated(points).sum() == OPTIMAL[device]


def test_the_best_architecture(benchmark: TabularBenchmark):
    best = benchmark.points()[:, 0].argmin()
    trial = benchmark.trial(0, genotype(benchmark, int(best)))
    assert best == 6111
    assert trial.values["error"] == pytest.approx(100 - 91.61, abs=0.005)


def test_a_trial_says_what_the_table_holds(benchmark: TabularBenchmark):
    for row in range(0, 15625, 1201):
        cell = genotype(benchmark, row)
        trial, short = benchmark.trial(3, cell), benchmark.trial(3, cell, epochs=12)
        known = benchmark.problem.known([cell])[0]
        assert list(trial.values) == ["error", "latency_ms_pixel3", "latency_ms_raspi4"]
        assert list(trial.values.values()) == benchmark.points()[row].tolist()
        assert known == {k: v for k, v in trial.values.items() if k != "error"}
        assert short.values["error"] == benchmark.points(12)[row, 0]
        assert short.seconds == pytest.approx(trial.seconds * 12 / 200)


def test_every_cell_is_an_architecture_unless_equal_ones_are_merged(benchmark: TabularBenchmark):
    cells = benchmark.table.genotypes
    np.testing.assert_array_equal(benchmark.problem.space.canonicalise(cells), cells)
    assert benchmark.problem.space.size == 15625
    merged = TabularBenchmark.load("nasbench201", "cifar10", ["pixel3"], space_settings={})
    assert merged.problem.space.size == 8265
    # A canonical genotype is itself a cell of the benchmark, and its own row answers.
    canonical = merged.problem.space.canonicalise(cells)
    np.testing.assert_array_equal(cells[merged.table.rows(canonical)], canonical)


def test_a_search_in_memory_keeps_its_limits(benchmark: TabularBenchmark):
    limited = TabularBenchmark.load(
        "nasbench201", "cifar100", ["pixel3"], constraints=["latency_ms_pixel3 <= 10"]
    )
    algorithm = algorithms.get("nsga2").start(limited.problem, 0)
    for number in range(40):
        [asked] = algorithm.ask(1)
        trial = limited.trial(number, asked)
        assert trial.values["latency_ms_pixel3"] <= 10
        algorithm.tell([trial])


def test_a_limit_on_what_is_no_objective_reaches_the_trials() -> None:
    limited = TabularBenchmark.load(
        "nasbench201",
        "cifar10",
        ["pixel3"],
        constraints=["params_m <= 0.5", "latency_ms_fpga <= 4"],
    )
    for name in ("guided", "tpe", "nsga2"):
        algorithm = algorithms.get(name).start(limited.problem, 0)
        for number in range(12):
            [asked] = algorithm.ask(1)
            trial = limited.trial(number, asked)
            assert list(trial.values) == ["error", "latency_ms_pixel3"]
            assert trial.facts["params_m"] <= 0.5
            assert trial.facts["latency_ms_fpga"] <= 4
            assert limited.problem.kept(trial)
            algorithm.tell([trial])


def test_a_limit_on_what_nothing_tells_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search\.constraints: got 'latency_ms', .*params_m"):
        TabularBenchmark.load("nasbench201", "cifar10", ["pixel3"], constraints=["latency_ms <= 5"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("cifar1", ["pixel3"], None), "data.dataset: got 'cifar1', expected .*cifar10, cifar100"),
        (("cifar10", ["pixel9"], None), "cost: got 'pixel9', expected .*raspi4"),
        (("cifar10", ["pixel3"], 50), "evaluation.epochs: got 50, expected .*12, 200"),
    ],
)
def test_what_is_not_published_is_refused(given: tuple[str, list[str], int | None], message: str):
    dataset, devices, epochs = given
    with pytest.raises(ConfigError, match=message):
        TabularBenchmark.load("nasbench201", dataset, devices, epochs=epochs)
