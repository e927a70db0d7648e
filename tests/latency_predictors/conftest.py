from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_spaces import mobilenet_of_few_blocks, small_mobilenet
from synthetic_device import latencies_ms

import latency_predictors
from latency_predictors.calibration.sampling import choose
from nas.core.space import Genotype
from nas.network.space import SearchSpace


@pytest.fixture(scope="package")
def space() -> SearchSpace:
    return small_mobilenet()


@pytest.fixture(scope="package")
def few_blocks() -> SearchSpace:
    return mobilenet_of_few_blocks()


@pytest.fixture(scope="package")
def unseen(space: SearchSpace) -> list[Genotype]:
    rng = np.random.default_rng(99)
    return [space.sample(rng) for _ in range(40)]


def make_sources(space: SearchSpace, folder: Path) -> tuple[str, ...]:
    """Save predictors of two other devices: arithmetic is dearer on one, weights on the other."""
    genotypes = choose(space, 40, seed=5)
    latency_ms, costs = latencies_ms(space, genotypes, noise=0.01, seed=5), space.costs(genotypes)
    for name, dearer in (("kernels", "macs_m"), ("ridge", "params_m")):
        share = costs[dearer].to_numpy() / costs[dearer].mean()
        theirs_ms = latency_ms + latency_ms.mean() * share
        latency_predictors.get(name).fit(space, genotypes, theirs_ms).save(folder / name)
    return tuple(str(folder / name) for name in ("kernels", "ridge"))


@pytest.fixture(scope="package")
def sources(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Folders with predictors of two other devices."""
    return make_sources(space, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="package")
def few_sources(
    few_blocks: SearchSpace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """The same for the space of few blocks."""
    return make_sources(few_blocks, tmp_path_factory.mktemp("few_sources"))
