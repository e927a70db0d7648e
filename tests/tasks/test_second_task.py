"""A second task is one file: a data set names it, and training and evaluation need no change.

The task is segmentation: a class of every pixel. Its images are dark with a bright square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas import objectives, tasks
from nas.core.dataset import Dataset, Examples, SearchSplits, fingerprint_difference
from nas.core.errors import ConfigError, DataError
from nas.core.recipe import Recipe
from nas.core.space import Gene
from nas.core.task import Array, Metric, Sums, Task
from nas.core.trial import Candidate
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.study.composition import compose
from nas.study.reading import read
from nas.tasks.classification import Classification
from nas.training.job import JudgingJob, TrainingJob


@tasks.register("square_segmentation")
@dataclass(frozen=True, kw_only=True)
class SquareSegmentation(Task):
    """Targets are masks `(n, H, W)`; outputs are logits `(n, classes, H, W)`."""

    class_names: tuple[str, ...] = ("ground", "square")

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("error", "%", about="100 - mean intersection over union"),
        Metric("pixel_error", "%", about="share of wrong pixels"),
    )

    @property
    def output_size(self) -> int:
        return len(self.class_names)

    @property
    def summary(self) -> str:
        return f"masks of {self.output_size} classes"

    @property
    def reading(self) -> str:
        return "The largest of `outputs` along axis 1 is the class of a pixel."

    def check(self, targets: Array) -> None:
        if targets.ndim != 3:
            raise DataError(f"got masks of shape {targets.shape}, expected (n, H, W)")

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        of_pixels = F.cross_entropy(
            outputs, targets, reduction="none", label_smoothing=label_smoothing
        )
        return of_pixels.mean(dim=(1, 2))

    def sums(self, outputs: Array, targets: Array) -> Sums:
        """Count the pixels of each class that are found, and those found or true."""
        found = outputs.argmax(axis=1)
        both = [np.sum((found == c) & (targets == c)) for c in range(self.output_size)]
        either = [np.sum((found == c) | (targets == c)) for c in range(self.output_size)]
        return np.array([both, either], dtype=np.float64)

    def scores(self, sums: Sums) -> dict[str, float]:
        both, either = sums
        pixels = (either.sum() + both.sum()) / 2
        return {
            "error": float(100 - 100 * np.mean(both / np.maximum(either, 1))),
            "pixel_error": float(100 - 100 * both.sum() / pixels),
        }

    def trivial(self, train: Array, validation: Array) -> dict[str, float]:
        guess = np.bincount(train.ravel()).argmax()
        constant = np.zeros((1, self.output_size, 1, 1))
        constant[:, guess] = 1
        outputs = np.broadcast_to(constant, (len(validation), self.output_size, *train.shape[1:]))
        return self.evaluate(outputs, validation)

    def strata(self, targets: Array) -> np.ndarray:
        return np.zeros(len(targets), np.int64)

    def counts(self, targets: Array) -> dict[str, int]:
        return {name: int(np.sum(targets == c)) for c, name in enumerate(self.class_names)}

    def read(self, outputs: Array) -> Sequence[str]:
        return [f"{100 * np.mean(mask):.0f} % square" for mask in outputs.argmax(axis=1)]


@dataclass(frozen=True, kw_only=True)
class Squares(Dataset):
    """Dark images with a bright square."""

    def search_splits(self) -> SearchSplits:
        return SearchSplits(self._examples(200, 0), self._examples(60, 1))

    def test_split(self) -> Examples:
        return self._examples(60, 2)

    def _examples(self, count: int, seed: int) -> Examples:
        rng = np.random.default_rng(seed)
        masks = np.zeros((count, 12, 12), np.int64)
        for mask, (row, column) in zip(masks, rng.integers(0, 7, (count, 2)), strict=True):
            mask[row : row + 5, column : column + 5] = 1
        noise = rng.integers(0, 60, (count, 1, 12, 12))
        pixels = (noise + 150 * masks[:, None]).astype(np.uint8)
        return Examples(pixels, masks, SquareSegmentation())


class Layer(nn.Sequential):
    def __init__(self, input_shape: Sequence[int], channels: int) -> None:
        super().__init__(
            nn.Conv2d(input_shape[0], channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )


class PixelClassifier(nn.Sequential):
    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__(nn.Conv2d(input_shape[0], num_classes, 1))


@dataclass(frozen=True, kw_only=True)
class MaskSpace(SearchSpace):
    """One convolution whose width is searched, and a class of every pixel."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (Gene("width", (4, 8)),)

    def blocks(self) -> Iterator[Block]:
        yield Block("layer", self._layer)
        yield Block("head", lambda _: ModuleSpec(PixelClassifier, {"num_classes": 2}))

    def _layer(self, chosen: Choices) -> ModuleSpec:
        return ModuleSpec(Layer, {"channels": chosen["width"]})


@pytest.fixture(scope="module")
def splits() -> SearchSplits:
    return Squares().search_splits()


def test_a_network_is_trained_and_judged_by_the_metrics_of_its_task(splits: SearchSplits):
    space = MaskSpace(input_shape=splits.input_shape, num_classes=splits.task.output_size)
    preprocessing = Preprocessing.of(splits.train)
    job = TrainingJob(
        space=space,
        train=splits.train,
        held_out=splits.validation,
        preprocessing=preprocessing,
        recipe=Recipe(epochs=4, batch_size=20),
        return_weights=True,
    )
    candidate = Candidate(number=0, genotype=(1,), arch_id="a", seed=0)
    trained = job(candidate, deadline=float("inf"))
    assert set(trained.metrics) == {metric.name for metric in splits.task.metrics}
    assert trained.metrics["error"] < splits.trivial()["error"] / 2
    assert objectives.get("error").after_training(trained.metrics) == trained.metrics["error"]
    judging = JudgingJob(
        networks={"a": job.trained_network(candidate, trained)}, images=splits.validation
    )
    again = judging(candidate, float("inf"))
    assert again.metrics == pytest.approx(trained.metrics)


def test_its_trivial_guess_finds_no_square(splits: SearchSplits):
    # All is ground: 119 of 144 pixels, and none of the square's.
    assert splits.trivial()["pixel_error"] == pytest.approx(100 * 25 / 144)
    assert splits.trivial()["error"] == pytest.approx(100 - 100 * 119 / 144 / 2)


def test_its_data_have_a_fingerprint_and_samples(splits: SearchSplits):
    record = Squares().fingerprint(splits)
    assert record["splits"]["test"]["counts"]["square"] == 60 * 25
    assert fingerprint_difference(record, Squares().fingerprint(splits)) is None
    assert len(splits.train.sample(10, seed=0)) == 10


def test_it_is_found_by_its_name():
    assert tasks.get("square_segmentation") == SquareSegmentation()
    assert {"classification", "square_segmentation"} <= set(tasks.names())


def test_metrics_are_objectives_of_the_data_that_have_them():
    settings = read(compose(["search.objectives=[pixel_error,params_m]"]))
    assert settings.of_task(SquareSegmentation()).objectives["pixel_error"].unit == "%"
    task = Classification(class_names=("ant", "bee"))
    with pytest.raises(ConfigError, match=r"search.objectives: got 'pixel_error'.*balanced_error"):
        settings.of_task(task)
