"""A training in parts ends where an uninterrupted one does, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import nn

from nas import data
from nas.core.dataset import Examples
from nas.core.recipe import AugmentationSettings, OptimizerSettings, Recipe
from nas.network.trained import Preprocessing
from nas.training.trainer import train

# Random numbers in the network and in the augmentation, momentum, batch statistics, and steps of
# every phase of the schedule.
RECIPE = Recipe(epochs=3, train_samples=400, augmentation=AugmentationSettings(flip=True))
STEPS = 3 * (400 // 64)


@pytest.fixture(scope="module")
def images() -> Examples:
    return data.get("digits").search_splits().train


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(8),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(512, 10),
    )


def trained(
    images: Examples, fidelities: Sequence[float], recipe: Recipe = RECIPE
) -> tuple[dict[str, torch.Tensor], bytes | None]:
    """Train in parts, each in a process of its own as far as torch can tell."""
    checkpoint = None
    for fidelity in fidelities:
        parts = network()
        checkpoint = train(
            parts,
            images,
            recipe,
            Preprocessing.of(images),
            fidelity=fidelity,
            checkpoint=checkpoint,
        ).checkpoint
        torch.randn(17)
    return parts.state_dict(), checkpoint


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, optimizer=OptimizerSettings(momentum=0.0)),
        replace(RECIPE, initial_resolution=0.5),
    ],
    ids=["momentum", "none", "growing images"],
)
@pytest.mark.parametrize(
    "fidelities",
    [[1 / 3, 1.0], [0.1, 0.33, 1.0], [0.5, 0.5, 1.0], [1e-6, 1.0]],
    ids=["epochs", "within an epoch", "nothing to do", "one step"],
)
def test_parts_equal_the_whole(images: Examples, fidelities: list[float], recipe: Recipe):
    whole, _ = trained(images, [1.0], recipe)
    parts, checkpoint = trained(images, fidelities, recipe)
    assert checkpoint is None
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_a_partial_training_is_the_beginning_of_the_full_one(images: Examples):
    once, checkpoint = trained(images, [0.5])
    twice, again = trained(images, [0.2, 0.5])
    assert checkpoint == again
    assert all(torch.equal(twice[name], value) for name, value in once.items())
    assert int(once["1.num_batches_tracked"]) == STEPS // 2


def test_a_checkpoint_is_numbers_only(images: Examples):
    _, checkpoint = trained(images, [0.5])
    assert checkpoint is not None
    tensors = safetensors.torch.load(checkpoint)
    assert int(tensors["taken"]) == STEPS // 2
    assert all(
        torch.isfinite(tensor).all() or name == "best_error" for name, tensor in tensors.items()
    )
