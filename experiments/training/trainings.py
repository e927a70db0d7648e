"""Trainings of fixed networks, each a row of a file, so that none is repeated."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown as markdown
from _shared.rows import append_row

import search_spaces
from nas import data
from nas.core.files import write_bytes_atomically
from nas.core.recipe import Recipe
from nas.core.space import Genotype
from nas.core.trial import Candidate
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.teacher import ModuleTeacher

PROCESSES = 2

WEIGHTS = Path(__file__).resolve().parent / ".cache"
"""Not kept in the repository."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A fixed network of a space.

    Attributes:
        space: Name of the space.
        choices: Values of genes by their names, or for several alike by the last part of them,
            behind that of their stage (`stage1.depth`) or alone; the first choice where none is
            given.
        settings: Of the space.
        genotype: In place of choices.
    """

    space: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    genotype: Genotype | None = None

    def placed(self, input_shape: tuple[int, ...], classes: int) -> tuple[SearchSpace, Genotype]:
        """Return its space for images of a shape, and its genotype."""
        space = search_spaces.get(
            self.space, input_shape=input_shape, num_classes=classes, **self.settings
        )
        if self.genotype is not None:
            return space, space.canonical(self.genotype)
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
        teacher: A training that is done before, whose network the recipe's teacher is.
        keep_weights: Whether the weights are kept, as those of a teacher are.
    """

    name: str
    network: Network
    recipe: Recipe
    seed: int
    dataset: tuple[str, tuple[tuple[str, Any], ...]] = ("fashion_mnist", ())
    judged_on: str = "validation"
    teacher: Run | None = None
    keep_weights: bool = False

    @property
    def weights(self) -> Path:
        """The file in which its weights are kept, where they are."""
        return WEIGHTS / f"{self.name}-{self.seed}.safetensors".replace(" ", "_")

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
    preprocessing = Preprocessing.of(train)
    teacher = None
    if run.teacher is not None:
        of_teacher, chosen = run.teacher.network.placed(splits.input_shape, splits.task.output_size)
        module = of_teacher.build(chosen)
        module.load_state_dict(safetensors.torch.load_file(run.teacher.weights))
        teacher = ModuleTeacher(
            provenance={"source": run.teacher.name}, module=module, preprocessing=preprocessing
        )
    job = TrainingJob(
        space=space,
        train=train,
        held_out=judged,
        preprocessing=preprocessing,
        recipe=run.recipe,
        teacher=teacher,
        return_weights=run.keep_weights,
    )
    candidate = Candidate(number=0, genotype=genotype, arch_id=run.name, seed=run.seed)
    started = time.process_time()
    outcome = job(candidate, float("inf"))
    if outcome.weights is not None:
        WEIGHTS.mkdir(exist_ok=True)
        write_bytes_atomically(run.weights, outcome.weights)
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
            append_row(file, future.result())
    found = pd.read_csv(file).set_index(["name", "seed", "judged_on"], drop=False)
    return found.loc[[run.key for run in runs]].reset_index(drop=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row a name: mean and deviation over its seeds, in the order of the first rows."""
    groups = found.groupby("name", sort=False)
    error = groups["error"]
    deviation = error.std().fillna(0)
    table = pd.DataFrame(
        {
            "accuracy, %": [
                f"{100 - m:.2f} ± {d:.2f}" for m, d in zip(error.mean(), deviation, strict=True)
            ],
            "seeds": groups["seed"].count(),
            "epochs": groups["epochs"].first(),
            "params, 10^6": groups["params_m"].first().map("{:.3f}".format),
            "MACs, 10^6": groups["macs_m"].first().map("{:.2f}".format),
            "processor s": groups["processor_s"].mean().round().astype(int),
        }
    )
    return table.rename_axis("training").reset_index()


def arguments(networks: Iterable[str]) -> argparse.Namespace:
    """Return `seeds` and `networks` of the command line; all networks unless some are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=list(networks))
    return parser.parse_args()


def write_table(runs: Sequence[Run], name: str) -> pd.DataFrame:
    """Train what `name.csv` lacks, write `name.md`, and return the rows."""
    here = Path(__file__).resolve().parent
    found = rows(runs, here / f"{name}.csv")
    table = markdown(summary(found))
    (here / f"{name}.md").write_text(table + "\n")
    print(table)
    return found
