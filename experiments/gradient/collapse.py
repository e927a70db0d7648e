"""Whether differentiable search collapses to skip connections, with and without guards.

Run `python experiments/gradient/collapse.py [--seeds 5] [--images 4000] [--epochs 30]`. A relaxed
network of NAS-Bench-201's cell, three cells a stage, is trained on Fashion-MNIST at half of its
resolution, without regard to any cost; the cell that it ends with is looked up in the published
table, CIFAR-10 after 200 epochs. The paper has
39.77 % validation accuracy for first-order DARTS there, which is that of a cell of skip connections
alone. Rows go to `collapse.csv`, and only those that it lacks are computed; the table to
`collapse.md`.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

import search_spaces
from nas import data
from nas.core.dataset import Examples
from nas.core.recipe import Recipe
from nas.core.relaxation import Goal, RelaxationSettings
from nas.network.trained import Preprocessing
from nas.tables.nasbench201 import load_nasbench201
from nas.training.relaxed import RelaxedJob, RelaxedTraining
from search_spaces.nasbench201 import SKIP, to_text

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "collapse.csv", HERE / "collapse.md"
KEY = ["contender", "seed", "cells", "images", "epochs"]

CHANNELS = 8
DARTS = {"relaxation": "mixed", "warmup": 0.0, "weight_decay": 1e-3}
CONTENDERS: Mapping[str, Mapping[str, Any]] = {
    "DARTS, first order": DARTS,
    "DARTS, second order": {**DARTS, "order": 2},
    "with beta": {**DARTS, "weight_decay": 0.0, "beta": 5.0},
    "with operation dropout": {**DARTS, "operation_dropout": 0.3},
    "with early stopping": {**DARTS, "eigenvalue_ratio": 0.75},
    "GDAS": {"relaxation": "sampled", "warmup": 0.0},
    "policy": {"relaxation": "policy"},
}


def halved(examples: Examples) -> Examples:
    """Return examples with the means of 2 x 2 pixels."""
    pixels = examples.pixels[:]
    n, channels, height, width = pixels.shape
    blocks = pixels.reshape(n, channels, height // 2, 2, width // 2, 2)
    return replace(examples, pixels=blocks.mean((3, 5)).round().astype(pixels.dtype))


def searched(contender: str, seed: int, cells: int, images: int, epochs: int) -> dict[str, Any]:
    """Train a relaxed network on one thread; return a row."""
    torch.set_num_threads(1)
    train = halved(data.get("fashion_mnist").search_splits().train)
    space = search_spaces.get(
        "nasbench201",
        input_shape=train.pixels.shape[1:],
        num_classes=train.task.output_size,
        channels=CHANNELS,
        cells_per_stage=cells,
        merge_equal=False,
    )
    settings = RelaxationSettings(
        epochs=epochs, train_samples=images, cost_weight=0.0, **CONTENDERS[contender]
    )
    job = RelaxedJob(
        space=space,
        train=train,
        preprocessing=Preprocessing.of(train),
        recipe=Recipe.of(optimizer={"learning_rate": 0.025, "weight_decay": 3e-4}),
        settings=settings,
        cost=lambda rows: np.ones(len(rows)),
    )
    started = time.process_time()
    training = RelaxedTraining(job, Goal(1.0, seed), torch.device("cpu"))
    while training.taken < training.total and not training.stopped:
        training.take()
    table = load_nasbench201()
    place = np.flatnonzero((table["ops"] == np.array(training.genotype)).all(axis=1))[0]
    return {
        **dict(zip(KEY, (contender, seed, cells, images, epochs), strict=True)),
        "cell": to_text(training.genotype),
        "skips": sum(choice == SKIP for choice in training.genotype),
        "certainty": round(training.certainty, 3),
        "valid_percent": float(table["acc200_cifar10_valid"][place]),
        "reached": round(training.taken / training.total, 2),
        "processor_s": round(time.process_time() - started, 1),
    }


def main() -> None:
    """Compute the missing rows and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=3, help="of a stage")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    arguments = parser.parse_args()
    fixed = (arguments.cells, arguments.images, arguments.epochs)
    known = pd.read_csv(ROWS) if ROWS.is_file() else pd.DataFrame(columns=KEY)
    done = set(known[KEY].itertuples(index=False, name=None))
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in arguments.contenders]
    left = [each for each in wanted if (*each, *fixed) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        futures = [pool.submit(searched, *each, *fixed) for each in left]
        for future in as_completed(futures):
            known = pd.concat([known, pd.DataFrame([future.result()])], ignore_index=True)
            known.to_csv(ROWS, index=False)
            print(known.iloc[-1].to_dict(), flush=True)
    same = (known[KEY[2:]] == list(fixed)).all(axis=1)
    groups = known[same].groupby("contender", sort=False)
    summary = [
        {
            "search": name,
            "seeds": len(rows),
            "skip connections of 6": f"{rows['skips'].mean():.1f}",
            "CIFAR-10 validation, %": f"{rows['valid_percent'].mean():.2f}",
            "95 % interval": f"± {_interval(rows['valid_percent']):.2f}",
            "worst seed": f"{rows['valid_percent'].min():.2f}",
            "processor s": f"{rows['processor_s'].mean():.0f}",
        }
        for name, rows in groups
    ]
    TABLE.write_text(markdown(pd.DataFrame(summary)), encoding="utf-8")


def _interval(values: pd.Series) -> float:
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * values.std() / math.sqrt(n)) if n > 1 else math.nan


if __name__ == "__main__":
    main()
