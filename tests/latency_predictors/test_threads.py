"""Predictors keep to one thread, and say the same however many there could be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import threadpoolctl
import torch

import latency_predictors
import search_spaces
from latency_predictors.calibration.process import Samples
from latency_predictors.regression import EncodingRegression, MacsRegression, RidgeRegression
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.network.space import SearchSpace

COMPUTING: dict[str, tuple[type, tuple[str, ...]]] = {
    "block_table": (Samples, ("most_probable", "covariance")),
    "kernels": (Samples, ("most_probable", "covariance")),
    "gaussian_process": (EncodingRegression, ("fit", "evaluate")),
    "ridge": (RidgeRegression, ("fit", "evaluate")),
    "macs": (MacsRegression, ("fit", "evaluate")),
}
"""What does the work, by predictor."""


@pytest.fixture(scope="module")
def cells() -> SearchSpace:
    small = {"channels": 4, "cells_per_stage": 1}
    return search_spaces.get("nasbench201", input_shape=(1, 8, 8), num_classes=10, **small)


@pytest.fixture(scope="module")
def samples(cells: SearchSpace) -> tuple[list[Genotype], FloatArray]:
    rng = np.random.default_rng(0)
    genotypes = [cells.sample(rng) for _ in range(24)]
    noise = np.exp(0.02 * rng.standard_normal(24))
    return genotypes, (1 + cells.costs(genotypes)["macs_m"].to_numpy()) * noise


class Threads:
    """Every library has so many threads for the time of a `with` block."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        with ExitStack() as stack:
            stack.enter_context(threadpoolctl.threadpool_limits(self._threads))
            self._stack = stack.pop_all()

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        torch.set_num_threads(self._before)


def used() -> set[int]:
    pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return pools | {torch.get_num_threads()}


@pytest.mark.parametrize("name", COMPUTING)
def test_fitting_fitting_again_and_predicting_keep_to_one(
    name: str,
    cells: SearchSpace,
    samples: tuple[list[Genotype], FloatArray],
    monkeypatch: pytest.MonkeyPatch,
):
    seen: dict[str, set[int]] = {}

    def watched(method: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            seen.setdefault(method, set()).update(used())
            return original(*args, **options)

        return call

    cls, methods = COMPUTING[name]
    settings, (genotypes, latency_ms) = latency_predictors.get(name), samples
    settings.fit(cells, genotypes, latency_ms)  # loads the libraries
    for method in methods:
        monkeypatch.setattr(cls, method, watched(method, getattr(cls, method)))
    with Threads(2):
        fitted = settings.fit(cells, genotypes, latency_ms)
        assert seen == {method: {1} for method in methods}
        seen.clear()
        settings.refit(fitted, cells, genotypes, latency_ms).predict(genotypes)
        assert seen
        assert set().union(*seen.values()) == {1}
        assert used() == {2}


@pytest.mark.parametrize("name", COMPUTING)
def test_the_number_of_threads_changes_nothing(
    name: str, cells: SearchSpace, samples: tuple[list[Genotype], FloatArray]
):
    settings, (genotypes, latency_ms) = latency_predictors.get(name), samples

    def predicted() -> tuple[list[float], ...]:
        fitted = settings.fit(cells, genotypes[:18], latency_ms[:18])
        again = settings.refit(fitted, cells, genotypes, latency_ms)
        return tuple(_values(predictor, genotypes) for predictor in (fitted, again))

    with Threads(1):
        one = predicted()
    with Threads(2):
        assert predicted() == one


def _values(predictor: LatencyPredictor, genotypes: list[Genotype]) -> list[float]:
    prediction = predictor.predict(genotypes)
    return [*prediction.mean_ms.tolist(), *prediction.std_ms.tolist()]
