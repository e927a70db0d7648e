"""All genes of compression together, against each alone and against random choices.

Run `python experiments/compression/search.py [--seeds N]` on a machine that does nothing else.
ResNet-18 is compressed by studies of equal numbers of evaluations, without training, over error,
latency and stored size; compared are the hypervolumes of their fronts, relative to 1.1 of the
base's latency and stored size and to an error of 30 %. Random choices are random but for the base;
the others begin as `nas compress` does. Then networks of four widths are compressed, and their
fronts drawn into `explorer.png`; `explorer.md` has of each the least latency and stored size that
cost at most one point. Rows go to `search.csv`, the table to `search.md`; studies that are there
are not run again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from base_networks import CACHE, WIDTH, folder_of
from recipes import append_row, markdown, splits
from scipy import stats

import nas
from nas.results.hypervolume import hypervolume
from nas.results.plot import plot_fronts
from nas.results.study import StudyResults

HERE = Path(__file__).resolve().parent
RUNS = CACHE / "runs"
EVALUATIONS = 64
WIDTHS = (8, 12, 16, 24)
ONLY_BASE = "search.warm_start=[base]"
WORST = 30.0
"""Error of the reference point, in percent."""

LOST = 1.0
"""Points of validation error that a network of `explorer.md` may lose."""

MARGIN = 1.1
"""Its latency and stored size, as shares of the base's."""

ALONE: Mapping[str, tuple[Any, ...]] = {
    "channels": (1.0, 0.75, 0.5, 0.25),
    "precisions": ("fp32", "int8"),
    "ranks": (1.0, 0.75, 0.5),
    "sparsities": (0.0, 0.5, 0.7, 0.9),
    "clusters": (0, 64, 16),
}


def contenders() -> dict[str, tuple[str, Mapping[str, tuple[Any, ...]]]]:
    """Return algorithm and choices by the names of what is compared."""
    unchanged = {name: choices[:1] for name, choices in ALONE.items()}
    together = {"all, guided": ("guided", ALONE), "all, random": ("random_search", ALONE)}
    return together | {
        f"{name} alone": ("guided", {**unchanged, name: choices}) for name, choices in ALONE.items()
    }


def study(name: str, base: str, seed: int, algorithm: str, choices: Mapping[str, Any]) -> Any:
    """Run a study, or go on with it."""
    return nas.compress(
        folder_of(base, seed),
        data="fashion_mnist",
        name=name,
        objectives=["error", "latency_ms", "stored_size_mb"],
        evaluations=EVALUATIONS,
        overrides=[f"search={algorithm}", *([] if algorithm == "guided" else [ONLY_BASE])],
        settings={
            "seed": seed,
            "runs": str(RUNS),
            **{f"search_space.{setting}": list(values) for setting, values in choices.items()},
            "latency_predictor.samples": 40,
            "evaluation.validation_images": 2000,
            "finalise.limit": 0,
        },
    )


def smaller(found: StudyResults) -> dict[str, str]:
    """Return the latency and the stored size of a base, and the least ones within `LOST`."""
    trials = found.trials()
    error, *costs = found.columns.values()
    complete = trials[trials["status"] == "complete"].sort_values("number")
    base = complete.iloc[0]
    kept = complete[complete[error] <= base[error] + LOST]
    row = {"base": found.name, "error, %": f"{base[error]:.2f}"}
    for name, column in zip(("latency, ms", "stored, MB"), costs, strict=True):
        least = float(kept[column].min())
        row[name], row[f"least {name}"] = f"{base[column]:.3f}", f"{least:.3f}"
        row[f"share of {name.partition(',')[0]}"] = f"{least / base[column]:.2f}"
    return row


def share(found: StudyResults) -> float:
    """Return the hypervolume of a study's front, as a share of the box up to the reference."""
    trials = found.trials()
    names = list(found.columns.values())
    complete = trials[trials["status"] == "complete"]
    base = complete.sort_values("number").iloc[0]
    reference = [WORST, *(MARGIN * float(base[name]) for name in names[1:])]
    points = complete[names].to_numpy(dtype=float)
    return hypervolume(points, reference) / math.prod(reference)


def main() -> None:
    """Run the missing studies and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds, file = parser.parse_args().seeds, HERE / "search.csv"
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["genes", "seed"])
    done = set(zip(known["genes"], known["seed"], strict=True))
    assert splits()
    for seed in range(seeds):
        for name, (algorithm, choices) in contenders().items():
            if (name, seed) not in done:
                folder = f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
                found = study(folder, "resnet18", seed, algorithm, choices)
                append_row(file, {"genes": name, "seed": seed, "hypervolume": share(found)})
    rows = pd.read_csv(file).pivot_table(index="seed", columns="genes", values="hypervolume")
    first, table = rows["all, guided"], []
    for name in contenders():
        less = (first - rows[name]).dropna()
        half = stats.t.ppf(0.975, len(less) - 1) * less.std() / math.sqrt(len(less))
        row = {"genes": name, "hypervolume": f"{rows[name].mean():.4f}"}
        table.append({**row, "less than all, guided": f"{less.mean():.4f} ± {half:.4f}"})
    text = markdown(pd.DataFrame(table))
    (HERE / "search.md").write_text(text + "\n")
    print(text)
    sizes = [
        study(f"width_{w}", "resnet18" if w == WIDTH else f"resnet18-{w}", 0, "guided", ALONE)
        for w in WIDTHS
    ]
    plot_fronts(sizes, [each.pareto() for each in sizes], HERE / "explorer.png")
    text = markdown(pd.DataFrame(map(smaller, sizes)))
    (HERE / "explorer.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
