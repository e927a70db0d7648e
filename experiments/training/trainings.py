"""Trainings of fixed networks, each a row of a file, so that none is repeated."""

from __future__ import annotations

import csv
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import search_spaces
from nas import data
from nas.core.recipe import Recipe
from nas.core.space import Genotype
from nas.core.trial import Candidate
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob

PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Network:
    """A fixed network of a space.

    Attributes:
        space: Name of the space.
        choices: Values of genes by their names, or for several alike by the last part of them,
            behind that of their stage (`stage1.depth`) or alone; the first choice where none is
            given.
        settings: Of the space.
    """

    space: str
    choices: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def placed(self, input_shape: tuple[int, ...], classes: int) -> tuple[SearchSpace, Genotype]:
        """Return its space for images of a shape, and its genotype."""
        space = search_spaces.get(
            self.space, input_shape=input_shape, num_classes=classes, **self.settings
        )
        chosen = []
        for gene in space.genes:
            stage, _, last = gene.name.partition(".")
            names = (
                gene.name,
                f"{stage}.{last.rpartition('.')[2]}",
                last.rpartition(".")[2],
                stage,
            )
            value = next((self.choices[n] for n in names if n in self.choices), gene.choices[0])
            chosen.append(gene.choices.index(value))
        return space, space.canonical(chosen)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        name: Unique but for the seed.
        network: What is trained.
        recipe: How.
        seed: Of initial weights and training.
        dataset: Name and settings of the data set.
        judged_on: `validation`, of a training on the train split; or `test`, once, of one on train
            and validation images together.
    """

    name: str
    network: Network
    recipe: Recipe
    seed: int
    dataset: tuple[str, tuple[tuple[str, Any], ...]] = ("fashion_mnist", ())
    judged_on: str = "validation"

    @property
    def key(self) -> tuple[str, int, str]:
        """What a row is known by."""
        return self.name, self.seed, self.judged_on


def trained(run: Run) -> dict[str, Any]:
    """Train on one thread; return a row."""
    torch.set_num_threads(1)
    name, settings = run.dataset
    dataset = data.get(name, **dict(settings))
    splits = dataset.search_splits()
    train, judged = splits.train, splits.validation
    if run.judged_on == "test":
        train, judged = train.joined(judged), dataset.test_split()
    space, genotype = run.network.placed(splits.input_shape, splits.task.output_size)
    job = TrainingJob(
        space=space,
        train=train,
        held_out=judged,
        preprocessing=Preprocessing.of(train),
        recipe=run.recipe,
    )
    candidate = Candidate(number=0, genotype=genotype, arch_id=run.name, seed=run.seed)
    started = time.process_time()
    outcome = job(candidate, float("inf"))
    costs = space.costs([genotype]).iloc[0]
    return {
        "name": run.name,
        "seed": run.seed,
        "judged_on": run.judged_on,
        "error": outcome.metrics["error"],
        "processor_s": round(time.process_time() - started, 1),
        "epochs": run.recipe.epochs,
        "train_loss": outcome.history[-1]["loss"],
        "params_m": float(costs["params_m"]),
        "macs_m": float(costs["macs_m"]),
    }


def rows(runs: Sequence[Run], file: Path) -> pd.DataFrame:
    """Return the rows of `runs`; those that `file` lacks are trained first."""
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["name"])
    keys = set(zip(known["name"], known.get("seed", []), known.get("judged_on", []), strict=True))
    left = [run for run in runs if run.key not in keys]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        for future in as_completed([pool.submit(trained, run) for run in left]):
            row = future.result()
            print(row, flush=True)
            new = not file.is_file()
            with file.open("a", newline="") as opened:
                writer = csv.DictWriter(opened, list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)
    found = pd.read_csv(file).set_index(["name", "seed", "judged_on"], drop=False)
    return found.loc[[run.key for run in runs]].reset_index(drop=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return mean and deviation over seeds, a row a name, in the order of the first rows."""
    groups = found.groupby("name", sort=False)
    table = groups.agg(
        seeds=("seed", "count"),
        epochs=("epochs", "first"),
        params_m=("params_m", "first"),
        macs_m=("macs_m", "first"),
        processor_s=("processor_s", "mean"),
    )
    error = groups["error"]
    table.insert(0, "accuracy", (100 - error.mean()).round(2))
    table.insert(1, "deviation", error.std().round(2))
    return table.reset_index()
