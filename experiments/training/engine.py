"""How fast the training engine is: against a plain loop, and against the bare steps.

Run `python experiments/training/engine.py` on a machine that does nothing else. For networks of
several sizes it times, in turn and on one thread, the steps of

- `bare`: forward and backward pass, cross entropy and a step of PyTorch's fused SGD, again and
  again on one batch that lies ready;
- `engine`: `nas.training.trainer`, with its augmentation (shift and flip), lease, schedule and
  bookkeeping;
- `engine_bf16`: the same with `compute.precision=bf16`;
- `plain`: a loop as PyTorch's tutorials have it, a `Dataset` that shifts, flips and normalises each
  image with tensor operations, and a `DataLoader`; in this process, as the other two are;
- `plain_beside`: the same with a worker process for the loader, which takes a second core.

The networks are the fixed ones of `networks.py` and random ones of several sizes. Seconds are
wall-clock; of the rounds the fastest counts. Rows go to `engine.csv`.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import DEPTHWISE, FUSED, VIT
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import search_spaces
from nas import data
from nas.core.dataset import Examples
from nas.core.recipe import ComputeSettings, Recipe
from nas.core.space import Genotype
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.trainer import train

HERE = Path(__file__).resolve().parent
BATCH, BATCHES, ROUNDS = 64, 60, 5
RECIPE = Recipe.of(epochs=1, batch_size=BATCH, augmentation={"flip": True})
SHAPE, CLASSES = (1, 28, 28), 10
SHARES = (0.0, 0.1, 0.3, 0.6)
"""Of 200 random networks in order of their MACs, those at these shares are timed."""


class PlainDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images that are augmented and normalised one by one."""

    def __init__(self, images: Examples, preprocessing: Preprocessing) -> None:
        self._pixels = torch.from_numpy(np.asarray(images.pixels))
        self._targets = images.targets.tolist()
        self._mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
        self._std = torch.tensor(preprocessing.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        image = self._pixels[position].float() / 255
        _, height, width = image.shape
        largest = round(RECIPE.augmentation.shift * height)
        padded = F.pad(image, (largest,) * 4, mode="replicate")
        top, left = torch.randint(0, 2 * largest + 1, (2,)).tolist()
        image = padded[:, top : top + height, left : left + width]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image - self._mean) / self._std, self._targets[position]


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    """Take one step."""
    optimizer.zero_grad()
    F.cross_entropy(network(x), y).backward()
    optimizer.step()


def fresh(build: Callable[[], nn.Module]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a new network in training and its optimizer."""
    network = build().train().to(memory_format=torch.channels_last)
    settings = RECIPE.optimizer
    optimizer = torch.optim.SGD(
        network.parameters(),
        settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
        fused=True,
    )
    return network, optimizer


def bare(build: Callable[[], nn.Module], images: Examples, preprocessing: Preprocessing) -> float:
    """Return the seconds of the bare steps."""
    network, optimizer = fresh(build)
    x = preprocessing(torch.from_numpy(np.asarray(images.pixels[:BATCH])))
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(images.targets[:BATCH])
    step(network, optimizer, x, y)
    started = time.perf_counter()
    for _ in range(BATCHES):
        step(network, optimizer, x, y)
    return time.perf_counter() - started


def engine(
    build: Callable[[], nn.Module],
    images: Examples,
    preprocessing: Preprocessing,
    recipe: Recipe = RECIPE,
) -> float:
    """Return the seconds of the engine's steps."""
    # The first training makes room and compiles kernels, as the first step of the others does.
    train(build(), images.take(np.arange(BATCH)), recipe, preprocessing)
    network = build()
    started = time.perf_counter()
    train(network, images, recipe, preprocessing)
    return time.perf_counter() - started


def engine_bf16(
    build: Callable[[], nn.Module], images: Examples, preprocessing: Preprocessing
) -> float:
    """Return the seconds of the engine's steps in bf16."""
    recipe = replace(RECIPE, compute=ComputeSettings(precision="bf16"))
    return engine(build, images, preprocessing, recipe)


def plain(
    build: Callable[[], nn.Module], images: Examples, preprocessing: Preprocessing, workers: int = 0
) -> float:
    """Return the seconds of the steps of a loop with a data loader."""
    network, optimizer = fresh(build)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RECIPE.optimizer.learning_rate, total_steps=BATCHES + 2
    )
    loader = DataLoader(
        PlainDataset(images, preprocessing),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(loader)
    step(network, optimizer, *next(batches))
    started = time.perf_counter()
    taken = 0
    for x, y in batches:
        step(network, optimizer, x.contiguous(memory_format=torch.channels_last), y)
        schedule.step()
        taken += 1
    return (time.perf_counter() - started) * BATCHES / taken


def plain_beside(
    build: Callable[[], nn.Module], images: Examples, preprocessing: Preprocessing
) -> float:
    """Return the seconds of the steps of a loop whose loader has a process of its own."""
    return plain(build, images, preprocessing, workers=1)


LOOPS = (bare, engine, engine_bf16, plain, plain_beside)


def networks() -> Iterator[tuple[str, SearchSpace, Genotype]]:
    """Yield the networks that are timed, with their names and spaces."""
    for name, network in (("transformer", VIT), ("depthwise", DEPTHWISE), ("fused", FUSED)):
        yield name, *network.placed(SHAPE, CLASSES)
    space = search_spaces.get("mobilenet", input_shape=SHAPE, num_classes=CLASSES)
    genotypes = space.samples(200, np.random.default_rng(0))
    order = np.argsort(space.costs(genotypes)["macs_m"].to_numpy())
    for share in SHARES:
        yield "random", space, tuple(genotypes[order[int(share * (len(order) - 1))]].tolist())


def main() -> None:
    """Time every loop on every network; print and write a row a network."""
    torch.set_num_threads(1)
    splits = data.get("fashion_mnist").search_splits()
    images = splits.train.take(np.arange(BATCH * BATCHES))
    preprocessing = Preprocessing.of(splits.train)
    rows: list[dict[str, Any]] = []
    for name, space, genotype in networks():

        def build(space: SearchSpace = space, genotype: Genotype = genotype) -> nn.Module:
            torch.manual_seed(0)
            return space.build(genotype)

        seconds = {loop.__name__: float("inf") for loop in LOOPS}
        for _ in range(ROUNDS):
            for loop in LOOPS:
                found = loop(build, images, preprocessing)
                seconds[loop.__name__] = min(seconds[loop.__name__], found)
        macs_m = float(space.costs([genotype])["macs_m"].iloc[0])
        row: dict[str, Any] = {"network": name, "macs_m": round(macs_m, 2)}
        row |= {f"{loop}_images_per_s": round(len(images) / s) for loop, s in seconds.items()}
        row["engine_by_plain"] = round(seconds["plain"] / seconds["engine"], 2)
        row["bf16_by_plain"] = round(seconds["plain"] / seconds["engine_bf16"], 2)
        row["engine_by_plain_beside"] = round(seconds["plain_beside"] / seconds["engine"], 2)
        row["over_bare_percent"] = round(100 * (seconds["engine"] / seconds["bare"] - 1), 1)
        print(row, flush=True)
        rows.append(row)
    with (HERE / "engine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
