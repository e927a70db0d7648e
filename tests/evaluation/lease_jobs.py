"""A real training whose steps leave a note of when they began and ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.core.dataset import Examples
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Outcome
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification
from nas.training.trainer import evaluate, train


class Noting(nn.Module):
    """Writes the times of its forward passes, and of the end of its backward passes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(16, 10)
        self._path = path
        self.layers[0].weight.register_hook(self._note)

    def forward(self, x: Tensor) -> Tensor:
        self._note(x)
        y: Tensor = self.head(self.layers(x))
        self._note(y)
        return y

    def _note(self, tensor: Tensor) -> None:
        with self._path.open("a") as file:
            file.write(f"{time.monotonic()}\n")


@dataclass(frozen=True)
class NotedTraining:
    """Trains and evaluates in turn until `folder` has a file `stop`; notes go to `folder`."""

    folder: Path

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        torch.set_num_threads(1)
        rng = np.random.default_rng(candidate.number)
        images = Examples(
            pixels=rng.integers(0, 256, (512, 1, 16, 16), dtype=np.uint8),
            targets=rng.integers(0, 10, 512),
            task=Classification(class_names=tuple("0123456789")),
        )
        network = Noting(self.folder / f"{candidate.number}.txt")
        preprocessing = Preprocessing.of(images)
        while not (self.folder / "stop").exists():
            train(network, images, Recipe(epochs=1), preprocessing, deadline)
            evaluate(network, images, preprocessing)
        return Outcome(metrics=evaluate(network, images, preprocessing))
