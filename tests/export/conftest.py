from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from export_space import SampleSpace
from torch import nn

from nas.core.measurement import Measurement
from nas.network.trained import Preprocessing, TrainedNetwork
from nas.tasks.classification import Classification


@pytest.fixture(scope="session")
def space() -> SampleSpace:
    return SampleSpace(input_shape=(3, 12, 8), num_classes=3)


@pytest.fixture(scope="session")
def network(space: SampleSpace) -> nn.Module:
    """A network whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    network = space.build((1, 1))
    for _ in range(3):
        network(2 + 3 * torch.randn(8, *space.input_shape))
    return network.eval()


@pytest.fixture(scope="session")
def measurement() -> Measurement:
    return Measurement(
        samples_ms=tuple(np.linspace(1.0, 2.0, 11)),
        relative_ci=0.02,
        peak_memory_mb=3.5,
        protocol={"rounds": 5},
        device={"name": "cpu", "threads": 1},
        environment={"cpu": {"model": "some processor"}, "load": None},
    )


@pytest.fixture(scope="session")
def trained(space: SampleSpace, network: nn.Module) -> TrainedNetwork:
    architecture = space.architecture((1, 1))
    return TrainedNetwork(
        module=network,
        preprocessing=Preprocessing(
            mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), image_size=space.input_shape[1:]
        ),
        outputs=("ant", "bee", "cat"),
        provenance={
            "arch_id": architecture.arch_id,
            "space": {
                "class": "export_space.SampleSpace",
                "settings": dataclasses.asdict(space),
                "space_id": architecture.space_id,
            },
            "genotype": architecture.genotype,
            "task": "classification",
            "reading": Classification(class_names=("ant", "bee", "cat")).reading,
            "dataset": {"name": "insects"},
            "training": {"epochs": 3},
        },
        metrics={"error_test": 12.5, "test_images": 800, "params_m": 0.003},
    )
