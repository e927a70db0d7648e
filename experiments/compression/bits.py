"""Bits of a layer's weights by search and by sensitivity, against the same bits everywhere.

Run `python experiments/compression/bits.py [--seeds N]`. A vision transformer is trained on
Fashion-MNIST for every seed. The weights of its layers have 32 or 8 bits, or 16, 8 or 4 different
values, which are 4, 3 and 2 bits: the same everywhere; or as a search finds them, by errors on
validation images; or by sensitivity, where the layers that lose least by byte lose their bits
first. They are judged on the test split at the stored sizes of the same bits everywhere, and
between these. The same bits everywhere are also trained, with the base as teacher. Rows go to
`bits.csv`, the table to `bits.md`; seeds that are there are not done again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from base_networks import folder_of, space_of
from recipes import TUNED, append_row, compressed, genotype_of, markdown, mean_and_deviation, splits

import nas
from nas.core.space import Genotype
from nas.network.space import SearchSpace

HERE = Path(__file__).resolve().parent
CHOICES: dict[str, tuple[Any, ...]] = {
    "channels": (1.0,),
    "precisions": ("fp32", "int8_weights"),
    "clusters": (0, 16, 8, 4),
}
BITS: dict[int, dict[str, Any]] = {
    32: {},
    8: {"precision": "int8_weights"},
    4: {"clusters": 16},
    3: {"clusters": 8},
    2: {"clusters": 4},
}
"""The choices by which a layer's weights have so many bits."""

EVALUATIONS = 100
JUDGED = 5_000
"""Validation images by which a search and the sensitivity choose."""


def by_search(base: Path, seed: int, algorithm: str) -> pd.DataFrame:
    """Search for bits; return genotypes with their validation error and stored size."""
    with tempfile.TemporaryDirectory() as runs:
        study = nas.compress(
            base,
            data="fashion_mnist",
            name="bits",
            objectives=["error", "stored_size_mb"],
            evaluations=EVALUATIONS,
            overrides=[f"search={algorithm}"],
            settings={
                "seed": seed,
                "runs": runs,
                **{f"search_space.{name}": list(values) for name, values in CHOICES.items()},
                "search.adaptive_measurement.measurements": 0,
                "evaluation.validation_images": JUDGED,
                "finalise.limit": 0,
            },
        )
        trials = study.trials()
    trials = trials[trials["status"] == "complete"]
    return trials[["genotype", "error", "stored_size_mb"]]


def by_sensitivity(space: SearchSpace, seed: int) -> pd.DataFrame:
    """Take bits from one layer after the other; return what there is on the way."""
    judged = splits().validation.drawn(JUDGED, 0)
    layers = dict.fromkeys(gene.name.rpartition(".")[0] for gene in space.genes)

    def genotype(bits: Mapping[str, int]) -> Genotype:
        chosen = {
            f"{layer}.{name}": value for layer, n in bits.items() for name, value in BITS[n].items()
        }
        start = space.references()["base"]
        return space.canonical(
            [
                gene.choices.index(chosen[gene.name]) if gene.name in chosen else unchanged
                for gene, unchanged in zip(space.genes, start, strict=True)
            ]
        )

    def found(bits: Mapping[str, int]) -> tuple[float, float]:
        _, facts = compressed(space, genotype(bits), seed=seed, held_out=judged)
        return float(facts["error"]), float(facts["stored_mb"])

    (own, whole), steps = found({}), []
    for layer in layers:
        for bits in BITS:
            if bits < 32:
                error, size = found({layer: bits})
                steps.append(((error - own) / (whole - size), layer, bits))
    current, rows = dict.fromkeys(layers, 32), []
    for _, layer, bits in sorted(steps):
        if bits < current[layer]:
            current[layer] = bits
            rows.append({"genotype": genotype(current), "stored_size_mb": found(current)[1]})
    return pd.DataFrame(rows)


def rows_of(seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a seed."""
    base = folder_of("transformer", seed)
    space = space_of(base, **CHOICES)

    def row(bits: str, genotype: Genotype, budget: str, epochs: int = 0) -> dict[str, Any]:
        _, facts = compressed(space, genotype, seed=seed, epochs=epochs, family="transformer")
        own = {"bits": bits, "seed": seed, "at_most": budget, "epochs": epochs}
        return {**own, "stored_mb": facts["stored_mb"], "error": facts["error"]}

    sizes = dict[int, float]()
    for bits, chosen in BITS.items():
        for epochs in (0, TUNED):
            one = row(f"{bits} everywhere", genotype_of(space, chosen), f"{bits} bits", epochs)
            sizes.setdefault(bits, one["stored_mb"])
            yield one
    budgets = {f"{bits} bits": sizes[bits] for bits in (8, 4, 3)}
    budgets["2.5 bits"] = (sizes[3] + sizes[2]) / 2
    found = {
        "by search, guided": by_search(base, seed, "guided"),
        "by search, random": by_search(base, seed, "random_search"),
        "by sensitivity": by_sensitivity(space, seed),
    }
    for budget, size in budgets.items():
        for name, candidates in found.items():
            fits = candidates[candidates["stored_size_mb"] <= size * 1.0001]
            if len(fits):
                # What sensitivity finds is in the order of its sizes.
                best = fits.sort_values("error") if "error" in fits else fits
                yield row(name, best.iloc[0]["genotype"], budget)


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
    groups = rows.groupby(["at_most", "bits", "epochs"], sort=False)
    table = pd.DataFrame(
        {
            "stored, MB": groups["stored_mb"].mean().map("{:.3f}".format),
            "accuracy, %": mean_and_deviation(groups["accuracy"]),
            "seeds": groups["seed"].count(),
        }
    ).reset_index()
    names = {"at_most": "at most as large as", "epochs": "epochs trained"}
    text = markdown(table.rename(columns=names))
    (HERE / "bits.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
