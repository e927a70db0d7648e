"""Predicted memory and flash of microcontrollers: laws that tools follow, and what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latency_predictors.calibration.footprint import Flash, Sram
from latency_predictors.calibration.sampling import choose
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.space import SearchSpace


@pytest.fixture(scope="module")
def genotypes(few_blocks: SearchSpace) -> list[Genotype]:
    return choose(few_blocks, 24, seed=0)


def head_mb(space: SearchSpace, genotypes: list[Genotype]) -> FloatArray:
    return space.arena_kb(genotypes) * 1024 / 1e6


def tail_mb(space: SearchSpace, genotypes: list[Genotype]) -> FloatArray:
    """Some bytes a layer, and some a channel, as TensorFlow Lite Micro takes them."""
    layers = [space.describe(genotype) for genotype in genotypes]
    return (
        np.array([sum(300 + 8 * each["output_shape"][0] for each in net) for net in layers]) / 1e6
    )


@pytest.mark.parametrize("has_tail", [True, False])
def test_an_arena_that_is_as_counted_is_predicted(
    few_blocks: SearchSpace, genotypes: list[Genotype], has_tail: bool, tmp_path: Path
) -> None:
    tail = tail_mb(few_blocks, genotypes) * has_tail
    fitted = Sram.fit(few_blocks, genotypes, head_mb(few_blocks, genotypes) + tail, tail)
    assert (fitted.tail is not None) == has_tail
    rng = np.random.default_rng(7)
    fresh = [few_blocks.sample(rng) for _ in range(40)]
    told = head_mb(few_blocks, fresh) + tail_mb(few_blocks, fresh) * has_tail
    predicted = fitted.predict_mb(fresh)
    assert np.mean(np.abs(predicted / told - 1) <= 0.05) >= 0.95
    assert fitted.held_out_errors().shape == (len(genotypes),)
    fitted.save(tmp_path)
    np.testing.assert_allclose(Sram.load(tmp_path).predict_mb(fresh), predicted, rtol=1e-9)


def test_flash_adds_up(few_blocks: SearchSpace, genotypes: list[Genotype], tmp_path: Path) -> None:
    def flash_mb(of: list[Genotype]) -> FloatArray:
        return few_blocks.costs(of)["params_m"].to_numpy() + tail_mb(few_blocks, of)

    fitted = Flash.fit(few_blocks, genotypes, flash_mb(genotypes))
    rng = np.random.default_rng(7)
    fresh = [few_blocks.sample(rng) for _ in range(40)]
    predicted = fitted.predict_mb(fresh)
    assert np.mean(np.abs(predicted / flash_mb(fresh) - 1) <= 0.05) >= 0.95
    fitted.save(tmp_path)
    np.testing.assert_allclose(Flash.load(tmp_path).predict_mb(fresh), predicted, rtol=1e-9)
