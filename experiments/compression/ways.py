"""What single ways of compression make of a residual network.

Run `python experiments/compression/ways.py [--seeds N]`. ResNet-18 is compressed in one way at a
time, the same in all layers, as it is and after some epochs of training by which it learns from the
base, and judged on the test split of Fashion-MNIST. Rows go to `ways.csv`, the table to `ways.md`;
what is there is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from base_networks import CACHE, folder_of, space_of
from recipes import (
    BASE_EPOCHS,
    TUNED,
    append_row,
    compressed,
    genotype_of,
    markdown,
    mean_and_deviation,
)

from nas.compression.base import Base
from nas.network.compact import with_plain_layers

HERE = Path(__file__).resolve().parent

ALL: dict[str, tuple[Any, ...]] = {
    "channels": (1.0, 0.75, 0.5),
    "ranks": (1.0, 0.75, 0.5),
    "precisions": ("fp32", "int8"),
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

GROWING = ", growing in number"
"""Behind the name of a way whose zero weights are all there after half of the training only."""

LONGER = ("base", "70% of the weights zero", "90% of the weights zero" + GROWING)
"""What is trained for as long as the base was, too."""


STEPS = (0.3, 0.5, 0.7)
"""Shares of zero weights after which a network is trained, each time by a whole schedule."""

IN_STEPS = f"{STEPS[-1]:.0%} of the weights zero, in {len(STEPS)} steps"


def trainings() -> Iterator[tuple[str, Mapping[str, Any], int, float]]:
    """Yield what is done: a way, its choices, epochs, and from when on all zeros are there."""
    for way, chosen in WAYS.items():
        for epochs in (0, TUNED):
            yield way, chosen, epochs, 0.0
        if chosen.get("sparsity") == 0.9:
            yield way + GROWING, chosen, TUNED, 0.5
    for name in LONGER:
        way = name.removesuffix(GROWING)
        yield name, WAYS[way], BASE_EPOCHS, 0.5 * (way != name)


def in_steps(seed: int) -> dict[str, Any]:
    """Set more weights to zero in every step, and train with the base as teacher in between."""
    folder, seconds = folder_of("resnet18", seed), 0.0
    teacher = space_of(folder, **ALL)
    for sparsity in STEPS:
        space = space_of(folder, **ALL)
        genotype = genotype_of(space, {"sparsity": sparsity})
        network, facts = compressed(space, genotype, seed=seed, epochs=TUNED, teacher=teacher)
        seconds += facts["processor_s"]
        base = Base.of(with_plain_layers(network), space.input_shape)
        folder = base.save(CACHE / f"resnet18-{seed}-sparse")
    return {**facts, "processor_s": seconds}


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row a way: accuracy before and after training, and what it takes."""
    found = found.assign(accuracy=100 - found["error"])
    groups = found.groupby("way", sort=False)
    table = groups[["stored_mb", "file_mb", "macs_m"]].mean().round(3)
    for epochs in sorted(found["epochs"].unique()):
        own = found[found["epochs"] == epochs].groupby("way", sort=False)["accuracy"]
        cells = pd.Series(mean_and_deviation(own), index=own.mean().index)
        table[f"accuracy after {epochs} epochs, %"] = cells.reindex(table.index, fill_value="")
    return table.reset_index()


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds, file = parser.parse_args().seeds, HERE / "ways.csv"
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["way", "epochs", "seed"])
    done = set(zip(known["way"], known["epochs"], known["seed"], strict=True))
    for seed in range(seeds):
        space = space_of(folder_of("resnet18", seed), **ALL)
        for way, chosen, epochs, growth in trainings():
            if (way, epochs, seed) not in done:
                genotype = genotype_of(space, chosen)
                _, facts = compressed(space, genotype, seed=seed, epochs=epochs, sparse_from=growth)
                append_row(file, {"way": way, "epochs": epochs, "seed": seed, **facts})
        if (IN_STEPS, TUNED * len(STEPS), seed) not in done:
            row = {"way": IN_STEPS, "epochs": TUNED * len(STEPS), "seed": seed}
            append_row(file, {**row, **in_steps(seed)})
    text = markdown(summary(pd.read_csv(file)))
    (HERE / "ways.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
