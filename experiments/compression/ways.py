"""What single ways of compression make of a residual network.

Run `python experiments/compression/ways.py [--seeds N]`. For every seed, ResNet-18 with a quarter
of its channels is trained on 20,000 images of Fashion-MNIST. Then it is compressed in one way at a
time, the same in all layers, as it is and with some epochs of training by which it learns from the
base, and judged on the test split. Rows go to `ways.csv`, the table to `ways.md`; bases are kept in
`.cache`, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

import bases
from _shared.markdown import markdown
from _shared.rows import append_row

import search_spaces
from nas import data
from nas.core.dataset import SearchSplits
from nas.core.recipe import Recipe
from nas.core.trial import Candidate
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.teacher import ModuleTeacher
from nas.training.trainer import train

HERE = Path(__file__).resolve().parent

EPOCHS, IMAGES = 8, 20_000
"""Of the base's training."""

TUNED = 3
"""Epochs of a compressed network's training, on as many images."""

ALL: dict[str, tuple[Any, ...]] = {
    "channels": (1.0, 0.75, 0.5),
    "ranks": (1.0, 0.75, 0.5),
    "precisions": ("fp32", "int8", "int8_weights", "int4_weights"),
    "sparsities": (0.0, 0.3, 0.5, 0.7, 0.9, "2:4"),
    "clusters": (0, 64, 16, 4),
}

WAYS: dict[str, dict[str, Any]] = {
    "base": {},
    **{f"{share:.0%} of the weights zero": {"sparsity": share} for share in (0.3, 0.5, 0.7, 0.9)},
    "two of four weights zero": {"sparsity": "2:4"},
    **{f"{share:.0%} of the channels": {"keep": share} for share in (0.75, 0.5)},
    **{f"{share:.0%} of the rank": {"rank": share} for share in (0.75, 0.5)},
    **{f"{n} values": {"clusters": n} for n in (64, 16, 4)},
    "8 bits": {"precision": "int8"},
    "8 bits, 70% zero": {"precision": "int8", "sparsity": 0.7},
}


@dataclass(frozen=True)
class Row:
    """One compressed network.

    Attributes:
        way: Name of the way, of `WAYS`.
        epochs: Of its training; 0 for none.
        seed: Of the base, and of the training.
        chosen: By the last names of genes, the choice that all of them have.
    """

    way: str
    epochs: int
    seed: int
    chosen: Mapping[str, Any] = field(default_factory=dict, compare=False)


def base_of(seed: int, splits: SearchSplits) -> Path:
    """Return the file with the weights of a seed's base, which is trained where there is none."""
    file = HERE / ".cache" / f"base-{seed}.safetensors"
    if not file.is_file():
        torch.manual_seed(seed)
        network = bases.resnet18()
        recipe = Recipe.of(
            "full",
            epochs=EPOCHS,
            train_samples=IMAGES,
            batch_size=128,
            augmentation={"flip": True, "shift": 0.0},
            compute={"precision": "bf16"},
        )
        train(network, splits.train, recipe, Preprocessing.of(splits.train))
        file.parent.mkdir(exist_ok=True)
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        safetensors.torch.save_file(state, file)
    return file


def compressed(row: Row, space: SearchSpace, splits: SearchSplits, base: Path) -> dict[str, Any]:
    """Compress, train and judge a network; return what is told of it."""
    named = [(gene, row.chosen.get(gene.name.rpartition(".")[2])) for gene in space.genes]
    start = space.references()["base"]
    genotype = space.canonical(
        [
            choice if value is None else gene.choices.index(value)
            for (gene, value), choice in zip(named, start, strict=True)
        ]
    )
    preprocessing = Preprocessing.of(splits.train)
    teacher, changes = None, dict[str, Any]()
    if row.epochs:
        network = bases.resnet18()
        network.load_state_dict(safetensors.torch.load_file(base))
        facts = {"source": "space:base"}
        teacher = ModuleTeacher(
            provenance=facts, module=network.eval(), preprocessing=preprocessing
        )
        changes = {"teacher": facts}
    job = TrainingJob(
        space=space,
        train=splits.train,
        held_out=data.get("fashion_mnist").test_split(),
        preprocessing=preprocessing,
        recipe=Recipe.of(
            "full",
            epochs=row.epochs,
            train_samples=IMAGES,
            batch_size=128,
            optimizer={"learning_rate": 1e-3},
            augmentation={"flip": True, "shift": 0.0},
            **changes,
        ),
        teacher=teacher,
        counts_stored=True,
    )
    candidate = Candidate(number=0, genotype=genotype, arch_id=row.way, seed=row.seed)
    started = time.process_time()
    metrics = job(candidate, float("inf")).metrics
    costs = space.costs([genotype]).iloc[0]
    return {
        "way": row.way,
        "epochs": row.epochs,
        "seed": row.seed,
        "error": metrics["error"],
        "stored_mb": metrics["stored_size_mb"],
        "file_mb": float(costs["model_size_mb"]),
        "macs_m": float(costs["macs_m"]),
        "processor_s": round(time.process_time() - started, 1),
    }


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row a way: accuracy before and after training, and what it takes."""
    groups = found.groupby("way", sort=False)
    table = groups[["stored_mb", "file_mb", "macs_m"]].mean().round(3)
    for epochs in sorted(found["epochs"].unique()):
        own = found[found["epochs"] == epochs].groupby("way", sort=False)["error"]
        mean, std = own.mean(), own.std().fillna(0)
        table[f"accuracy after {epochs} epochs, %"] = [
            f"{100 - mean[way]:.2f} ± {std[way]:.2f}" if way in mean else "" for way in table.index
        ]
    return table.reset_index()


def rows(seeds: Sequence[int]) -> list[Row]:
    """Return all networks."""
    return [
        Row(way, epochs, seed, chosen)
        for seed in seeds
        for way, chosen in WAYS.items()
        for epochs in (0, TUNED)
    ]


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    wanted = rows(range(parser.parse_args().seeds))
    splits = data.get("fashion_mnist").search_splits()
    file = HERE / "ways.csv"
    known = set()
    if file.is_file():
        table = pd.read_csv(file)
        known = set(zip(table["way"], table["epochs"], table["seed"], strict=True))
    for row in wanted:
        if (row.way, row.epochs, row.seed) in known:
            continue
        base = base_of(row.seed, splits)
        space = search_spaces.get(
            "compressed",
            input_shape=splits.input_shape,
            num_classes=10,
            base="bases:resnet18",
            base_weights=str(base),
            **ALL,
        )
        append_row(file, compressed(row, space, splits, base))
    text = markdown(summary(pd.read_csv(file)))
    (HERE / "ways.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
