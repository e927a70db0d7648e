"""The choice among predictors where some, or all, cannot be fitted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import latency_predictors
import search_spaces
from latency_predictors.additive import BlockTableSettings, KernelSettings
from nas.core.errors import ConfigError
from nas.network.space import SearchSpace


@pytest.fixture
def entangled(monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchSpace]:
    """A space that both table predictors refuse."""

    def refuse(self: object, *args: object) -> None:
        raise ConfigError("search_space", "entangled", "genes that can be tabulated")

    for settings in (KernelSettings, BlockTableSettings):
        monkeypatch.setattr(settings, "fit", refuse)
    small = {"channels": 4, "cells_per_stage": 1}
    return search_spaces.get("nasbench201", input_shape=(1, 8, 8), num_classes=10, **small)


def samples(space: SearchSpace) -> tuple[list[tuple[int, ...]], np.ndarray]:
    rng = np.random.default_rng(0)
    genotypes = [space.sample(rng) for _ in range(12)]
    return genotypes, 1 + space.costs(genotypes)["macs_m"].to_numpy()


def test_what_cannot_be_fitted_is_left_out(entangled: SearchSpace):
    fitted = latency_predictors.get("auto").fit(entangled, *samples(entangled))
    assert set(fitted.compared) == {"gaussian_process", "macs"}


@pytest.mark.parametrize("candidates", [("kernels",), ("kernels", "block_table")])
def test_when_none_can_be_fitted_all_reasons_are_given(
    entangled: SearchSpace, candidates: tuple[str, ...]
):
    settings = latency_predictors.get("auto", candidates=candidates)
    with pytest.raises(ConfigError) as caught:
        settings.fit(entangled, *samples(entangled))
    assert str(caught.value).startswith("latency_predictor.candidates: got ['kernels'")
    assert str(caught.value).count("genes that can be tabulated") == len(candidates)


def test_operations_do_not_stand_for_latencies_in_several_precisions():
    images = {"input_shape": (1, 28, 28), "num_classes": 10}
    space = search_spaces.get("mobilenet", **images, precisions=("fp32", "int8"))
    genotypes, latency_ms = samples(space)
    with pytest.raises(ConfigError, match=r"^latency_predictor: got 'macs', expected another"):
        latency_predictors.get("macs").fit(space, genotypes, latency_ms)
    first = space.deployment(genotypes[0])
    one_way = [genotype for genotype in genotypes if space.deployment(genotype) == first]
    with pytest.raises(ConfigError, match=r"^latency_predictor: got 'macs', expected another"):
        latency_predictors.get("macs").fit(space, one_way, latency_ms[: len(one_way)])
    fitted = latency_predictors.get("auto", candidates=("macs", "gaussian_process"))
    assert set(fitted.fit(space, genotypes, latency_ms).compared) == {"gaussian_process"}


@pytest.mark.parametrize("candidates", [(), ("auto",), ("kernels", "maks")])
def test_a_name_that_is_no_candidate_is_refused(candidates: tuple[str, ...]):
    """A typing error must not pass for a predictor that cannot be fitted."""
    with pytest.raises(ConfigError, match=r"latency_predictor\.candidates: got .* kernels"):
        latency_predictors.get("auto", candidates=candidates)
