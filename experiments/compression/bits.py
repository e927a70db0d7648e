"""Bits of a layer's weights by search and by sensitivity, against the same bits everywhere.

Run `python experiments/compression/bits.py [--seeds N]`. A vision transformer is trained on
Fashion-MNIST for every seed. Its layers have weights of 32, 8 or 4 bits: the same everywhere; or as
a search finds them, by errors on validation images; or by sensitivity, where the layers that lose
least by byte lose their bits first. They are judged on the test split at equal sizes of the file.
Rows go to `bits.csv`, the table to `bits.md`; seeds that are there are not done again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from base_networks import folder_of, space_of
from recipes import TUNED, append_row, compressed, genotype_of, markdown, mean_and_deviation, splits

import nas
from nas.core.space import Genotype
from nas.network.space import SearchSpace

HERE = Path(__file__).resolve().parent
PRECISIONS = ("fp32", "int8_weights", "int4_weights")
EVALUATIONS = 150
JUDGED = 5_000
"""Validation images by which a search and the sensitivity choose."""


def size_mb(space: SearchSpace, genotype: Genotype) -> float:
    """Return the size of a network's file."""
    return float(space.costs([genotype]).iloc[0]["model_size_mb"])


def by_search(base: Path, space: SearchSpace, seed: int, algorithm: str) -> pd.DataFrame:
    """Search for precisions; return genotypes with their validation error and size."""
    with tempfile.TemporaryDirectory() as runs:
        study = nas.compress(
            base,
            data="fashion_mnist",
            name="bits",
            objectives=["error", "model_size_mb"],
            evaluations=EVALUATIONS,
            overrides=[f"search={algorithm}"],
            settings={
                "seed": seed,
                "runs": runs,
                "search_space.channels": [1.0],
                "search_space.precisions": list(PRECISIONS),
                "search.adaptive_measurement.measurements": 0,
                "evaluation.validation_images": JUDGED,
                "finalise.limit": 0,
            },
        )
        trials = study.trials()
    trials = trials[trials["status"] == "complete"]
    sizes = [size_mb(space, genotype) for genotype in trials["genotype"]]
    return pd.DataFrame(
        {"genotype": trials["genotype"], "error": trials["error"], "size_mb": sizes}
    )


def by_sensitivity(space: SearchSpace, seed: int) -> pd.DataFrame:
    """Take bits from one layer after the other; return what there is on the way."""
    judged = splits().validation.drawn(JUDGED, 0)
    current = list(space.references()["base"])

    def error(genotype: list[int]) -> float:
        _, facts = compressed(space, tuple(genotype), seed=seed, held_out=judged)
        return float(facts["error"])

    own, whole, steps = error(current), size_mb(space, tuple(current)), []
    for place, gene in enumerate(space.genes):
        for choice in range(1, len(gene.choices)):
            changed = [*current[:place], choice, *current[place + 1 :]]
            saved = whole - size_mb(space, tuple(changed))
            steps.append(((error(changed) - own) / saved, place, choice))
    rows = []
    for _, place, choice in sorted(steps):
        if choice > current[place]:
            current[place] = choice
            rows.append({"genotype": tuple(current), "size_mb": size_mb(space, tuple(current))})
    return pd.DataFrame(rows)


def rows_of(seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a seed."""
    base = folder_of("transformer", seed)
    space = space_of(base, channels=(1.0,), precisions=PRECISIONS)
    # Convolutions have 8 bits where linear layers have 4.
    uniform = {
        name: genotype_of(space, {"precision": name}, {"precision": "int8_weights"})
        for name in PRECISIONS
    }

    def row(bits: str, genotype: Genotype, budget: float, epochs: int = 0) -> dict[str, Any]:
        _, facts = compressed(space, genotype, seed=seed, epochs=epochs, family="transformer")
        size = size_mb(space, genotype)
        own = {"bits": bits, "seed": seed, "budget_mb": round(budget, 4), "epochs": epochs}
        return {**own, "size_mb": size, "error": facts["error"]}

    sizes = {name: size_mb(space, genotype) for name, genotype in uniform.items()}
    for name, genotype in uniform.items():
        for epochs in (0, TUNED):
            yield row(f"{name} everywhere", genotype, sizes[name], epochs)
    low, high = sizes["int4_weights"], sizes["int8_weights"]
    budgets = [low + share * (high - low) for share in (0.25, 0.5, 0.75, 1.0)]
    found = {
        algorithm: by_search(base, space, seed, algorithm)
        for algorithm in ("guided", "random_search")
    }
    ordered = by_sensitivity(space, seed)
    for budget in budgets:
        for name, trials in found.items():
            fits = trials[trials["size_mb"] <= budget * 1.0001]
            if len(fits):
                best = fits.sort_values(["error", "size_mb"]).iloc[0]
                yield row(f"by search, {name}", best["genotype"], budget)
        fits = ordered[ordered["size_mb"] <= budget * 1.0001]
        yield row("by sensitivity", fits.iloc[0]["genotype"], budget)


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    file = HERE / "bits.csv"
    done = set(pd.read_csv(file)["seed"]) if file.is_file() else set()
    for seed in sorted(set(range(parser.parse_args().seeds)) - done):
        for row in list(rows_of(seed)):
            append_row(file, row)
    rows = pd.read_csv(file)
    rows["accuracy"] = 100 - rows["error"]
    groups = rows.groupby(["budget_mb", "bits", "epochs"])
    table = pd.DataFrame(
        {
            "file, MB": groups["size_mb"].mean().map("{:.3f}".format),
            "accuracy, %": mean_and_deviation(groups["accuracy"]),
            "seeds": groups["seed"].count(),
        }
    ).reset_index()
    text = markdown(table.rename(columns={"budget_mb": "at most, MB", "epochs": "epochs trained"}))
    (HERE / "bits.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
