"""Samples of labelled images."""

from __future__ import annotations

import numpy as np
import pytest

import nas.data
import search_spaces
from nas.core.dataset import Examples
from nas.core.recipe import Recipe
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification
from nas.training import job as job_module
from nas.training.job import TrainingJob

SIZES = (3, 50, 500)
THREE = Classification(class_names=("a", "b", "c"))


def ordered() -> Examples:
    """Images sorted by class, as folders list them; every image holds its own number."""
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    pixels = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(-1, 2, 1, 1)
    return Examples(pixels, labels, THREE)


def numbers(images: Examples) -> list[int]:
    return images.pixels.reshape(-1, 2).view(np.uint16).ravel().tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 64, 110, 300])
def test_every_prefix_of_a_sample_is_as_balanced_as_the_classes_allow(count: int) -> None:
    labels = ordered().sample(count, seed=0).targets
    assert len(labels) == count
    for end in range(count + 1):
        counts = np.bincount(labels[:end], minlength=len(SIZES))
        for size, got in zip(SIZES, counts, strict=True):
            # Only a class that has no more may have given less than the others.
            assert got == size or got >= counts.max() - 1


@pytest.mark.parametrize("count", [64, 553, 10_000])
def test_a_sample_has_no_image_twice_and_keeps_the_labels(count: int) -> None:
    images = ordered()
    sample = images.sample(count, seed=1)
    drawn = numbers(sample)
    assert len(drawn) == len(set(drawn)) == min(count, len(images))
    assert np.array_equal(images.targets[drawn], sample.targets)


def test_seed_alone_decides_the_sample() -> None:
    first, again, other = (numbers(ordered().sample(40, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    # A smaller sample is the beginning of a larger one.
    assert numbers(ordered().sample(15, 0)) == first[:15]


def test_sample_of_no_images() -> None:
    empty = Examples(np.zeros((0, 1, 2, 2), np.uint8), np.zeros(0, np.int64), THREE)
    assert len(empty.sample(5, seed=0)) == 0


def test_timing_trains_on_images_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = nas.data.get("digits").search_splits()
    by_class = np.argsort(splits.train.targets, kind="stable")
    train = splits.train.take(by_class)
    space = search_spaces.get("mobilenet", input_shape=splits.input_shape, num_classes=10)
    recipe = Recipe(epochs=1, batch_size=20)
    job = TrainingJob(
        space=space,
        train=train,
        held_out=splits.validation,
        preprocessing=Preprocessing.of(train),
        recipe=recipe,
        threads=1,
    )
    seen = []
    monkeypatch.setattr(
        job_module, "train", lambda network, images, *rest, **more: seen.append(images)
    )
    job.estimated_seconds(space.sample(np.random.default_rng(0)))
    assert [len(np.unique(images.targets)) for images in seen] == [10, 10]
