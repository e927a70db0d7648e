from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_device import latencies_ms

import latency_predictors
import search_spaces
from latency_predictors.calibration.sampling import choose
from nas.core.space import Genotype
from nas.network.space import SearchSpace


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Small matrices are worked on faster without threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def space() -> SearchSpace:
    return search_spaces.get(
        "mobilenet",
        input_shape=(1, 8, 8),
        num_classes=10,
        resolutions=(8, 12, 16),
        stem_stride=1,
        stage_channels=(16, 24),
        stage_strides=(1, 2),
        max_depth=2,
    )


@pytest.fixture(scope="package")
def few_blocks() -> SearchSpace:
    """A space of few distinct blocks, so that the files of its networks are soon written."""
    return search_spaces.get(
        "mobilenet",
        input_shape=(1, 8, 8),
        num_classes=10,
        resolutions=(8,),
        widths=(1.0,),
        kernels=(3, 5),
        expansions=(2, 4),
        activations=("relu6",),
        stem_stride=1,
        stage_channels=(16, 24),
        stage_strides=(1, 2),
        max_depth=2,
    )


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
