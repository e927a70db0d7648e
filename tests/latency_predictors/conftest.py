from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import search_spaces
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
