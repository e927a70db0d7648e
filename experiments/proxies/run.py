"""How well zero-cost proxies rank the cells of NAS-Bench-201 by their published accuracies.

Run `python experiments/proxies/run.py`. It draws random cells of all 15,625, builds the benchmark's
own networks (16 channels, five cells a stage, 32 pixels), and scores each with every proxy: with
several seeds of the initial weights and the batch on random images, and with one on the images of
Fashion-MNIST. Rows go to `scores.csv`; what is there is not scored again. From it `tables.md` is
written: Kendall's tau with the published accuracies of three data sets, over all cells and within
the best fifth of them, with 95 % intervals from a bootstrap over cells. `--tables` only does that.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import kendalltau, spearmanr
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

import search_spaces
from nas import data, tables
from nas.core.dataset import Examples
from nas.core.seeding import training_seed
from nas.evaluation import proxies
from nas.evaluation.proxies import Batch
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification

HERE = Path(__file__).resolve().parent
SCORES, TABLES = HERE / "scores.csv", HERE / "tables.md"
CELLS, IMAGES, SIZE = 200, 32, 32
RUNS = (("random", 0), ("fashion_mnist", 0), ("random", 1), ("random", 2))
"""Images and seed, in the order in which they are run."""

DATA_FREE = ("params", "macs", "synflow")
"""Proxies that look at no image, so that other images tell nothing new."""

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16": "ImageNet16-120"}
EPOCHS = 200
RESAMPLES, BEST = 500, 0.2
KEYS = ("cell", "images", "seed", "proxy")
FIELDS = (*KEYS, "term", "score", "seconds")
FloatArray = npt.NDArray[np.float64]


def cells() -> npt.NDArray[np.int64]:
    """Return the rows of the table that are scored."""
    whole = len(tables.get("nasbench201").genotypes)
    return np.sort(np.random.default_rng(0).choice(whole, CELLS, replace=False))


def batch(images: str, seed: int) -> Batch:
    """Return the examples of one run."""
    if images == "random":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(IMAGES, 3, SIZE, SIZE, generator=generator)
        names = tuple("0123456789")
        return Batch(noise, torch.arange(IMAGES) % len(names), Classification(class_names=names))
    train: Examples = data.get(images).search_splits().train
    chosen = train.sample(IMAGES, seed)
    pixels = Preprocessing.of(train)(torch.from_numpy(chosen.pixels[:]))
    margin = (SIZE - pixels.shape[-1]) // 2
    padded = F.pad(pixels, (margin,) * 4, mode="replicate").expand(-1, 3, -1, -1).contiguous()
    return Batch(padded, torch.from_numpy(chosen.targets), train.task)


def scored(
    space: SearchSpace, cell: int, own: Batch, seed: int, names: list[str]
) -> Iterator[tuple[str, str, float, float]]:
    """Yield the proxy, the name and the value of every score of a cell, and the seconds."""
    genotype = tables.get("nasbench201").genotypes[cell].tolist()
    torch.manual_seed(training_seed(seed, str(cell)))
    network = space.build(genotype)
    for name in names:
        began = time.process_time()
        found = proxies.get(name)(network, own)
        seconds = time.process_time() - began
        for term, score in found.items():
            yield name, term, score, seconds


def run() -> None:
    """Score what is not in `scores.csv` yet."""
    torch.set_num_threads(1)
    space = search_spaces.get(
        "nasbench201", input_shape=(3, SIZE, SIZE), num_classes=10, merge_equal=False
    )
    done = set()
    if SCORES.is_file():
        known = pd.read_csv(SCORES)
        done = set(map(tuple, known[list(KEYS)].to_numpy().tolist()))
    with SCORES.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(FIELDS)
        for images, seed in RUNS:
            own = batch(images, seed)
            of_run = [n for n in proxies.names() if images == "random" or n not in DATA_FREE]
            for position, cell in enumerate(cells().tolist()):
                left = [n for n in of_run if (cell, images, seed, n) not in done]
                rows = [(cell, images, seed, *row) for row in scored(space, cell, own, seed, left)]
                writer.writerows(rows)
                file.flush()
                if rows and not (position + 1) % 20:
                    print(f"{images}, seed {seed}: {position + 1} of {CELLS} cells", flush=True)


def by_run(scores: pd.DataFrame, images: str) -> dict[str, list[FloatArray]]:
    """Return of every proxy the scores of all cells, `(cells,)`, one array a complete run."""
    found: dict[str, list[FloatArray]] = {}
    for (name, _), rows in scores[scores["images"] == images].groupby(["proxy", "seed"]):
        table = rows.pivot_table(index="cell", columns="term", values="score", dropna=False)
        if len(table) == CELLS:
            lowest = np.nan_to_num(table.loc[cells()].to_numpy(float), neginf=-1e300)
            found.setdefault(str(name), []).append(proxies.combined(lowest))
    return found


def tau(x: FloatArray, y: FloatArray) -> float:
    """Return Kendall's tau-b."""
    return float(kendalltau(x, y).statistic)


def rho(x: FloatArray, y: FloatArray) -> float:
    """Return Spearman's rank correlation."""
    return float(spearmanr(x, y).statistic)


def of_runs(
    runs: list[FloatArray],
    accuracy: FloatArray,
    at: npt.NDArray[np.int64],
    measure: Callable[[FloatArray, FloatArray], float],
) -> float:
    """Return the mean over runs of a rank correlation on the cells `at`."""
    return float(np.mean([measure(run[at], accuracy[at]) for run in runs]))


def correlations(scores: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Return a row for every proxy and kind of images."""
    table = tables.get("nasbench201")
    accuracy = 100.0 - np.asarray(table.error(dataset, EPOCHS), float)[cells()]
    best = np.flatnonzero(accuracy >= np.quantile(accuracy, 1 - BEST))
    every = np.arange(CELLS)
    rng = np.random.default_rng(0)
    resamples = {
        "all": [rng.choice(every, CELLS) for _ in range(RESAMPLES)],
        "best": [rng.choice(best, len(best)) for _ in range(RESAMPLES)],
    }
    known = {images: by_run(scores, images) for images in dict.fromkeys(i for i, _ in RUNS)}
    baselines = {
        name: {
            s: [of_runs(known["random"][name], accuracy, at, tau) for at in ats]
            for s, ats in resamples.items()
        }
        for name in ("params", "macs")
    }
    rows = []
    for images, found in known.items():
        for name, runs in found.items():
            row: dict[str, object] = {
                "proxy": name,
                "images": "none" if name in DATA_FREE else images,
                "seeds": len(runs),
                "Spearman": f"{of_runs(runs, accuracy, every, rho):.3f}",
            }
            for subset, at in (("all", every), ("best", best)):
                drawn = [of_runs(runs, accuracy, each, tau) for each in resamples[subset]]
                low, high = np.nanpercentile(drawn, [2.5, 97.5])
                heading = "tau" if subset == "all" else "tau, best fifth"
                row[heading] = f"{of_runs(runs, accuracy, at, tau):.3f} ({low:.2f} to {high:.2f})"
                ahead = [
                    bool(np.nanpercentile(np.subtract(drawn, base[subset]), 2.5) > 0)
                    for base in baselines.values()
                ]
                row[f"{heading}: beats params, MACs"] = ", ".join(
                    "yes" if a else "no" for a in ahead
                )
            rows.append(row)
    return pd.DataFrame(rows).sort_values("tau", ascending=False, ignore_index=True)


def write_tables() -> None:
    """Write `tables.md` from `scores.csv`."""
    scores = pd.read_csv(SCORES)
    parts = []
    for dataset, title in DATASETS.items():
        split = tables.get("nasbench201").dataset(dataset).splits[EPOCHS]
        heading = f"## {title}, published {split} accuracy after {EPOCHS} epochs"
        parts.append(f"{heading}\n\n{markdown(correlations(scores, dataset))}")
    once = scores[scores["images"] == "random"].drop_duplicates(list(KEYS))
    seconds = once.groupby("proxy")["seconds"].mean().round(3).astype(str)
    cost = pd.DataFrame({"proxy": seconds.index, "processor seconds a network": seconds.to_numpy()})
    parts.append(f"## Cost\n\n{markdown(cost)}")
    TABLES.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    if not parser.parse_args().tables:
        run()
    write_tables()
