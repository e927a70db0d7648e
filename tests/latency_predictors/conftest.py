from __future__ import annotations

import numpy as np
import pytest
from synthetic_device import latencies_ms

import latency_predictors
import search_spaces
from latency_predictors.calibration.sampling import choose
from nas.core.space import Genotype
from nas.network.space import SearchSpace


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
def unseen(space: SearchSpace) -> list[Genotype]:
    rng = np.random.default_rng(99)
    return [space.sample(rng) for _ in range(40)]


@pytest.fixture(scope="package")
def sources(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Folders with predictors of two other devices: arithmetic is dearer on one, weights on one."""
    genotypes = choose(space, 40, seed=5)
    latency_ms, costs = latencies_ms(space, genotypes, noise=0.01, seed=5), space.costs(genotypes)
    folders = []
    for name, dearer in (("kernels", "macs_m"), ("ridge", "params_m")):
        folder = tmp_path_factory.mktemp(name)
        share = costs[dearer].to_numpy() / costs[dearer].mean()
        theirs_ms = latency_ms + latency_ms.mean() * share
        latency_predictors.get(name).fit(space, genotypes, theirs_ms).save(folder)
        folders.append(str(folder))
    return tuple(folders)
