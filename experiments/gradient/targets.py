"""Whether the measured latency of what a search by gradients finds follows the target.

Run `python experiments/gradient/targets.py [--seeds 3] [--targets 8]` on a machine that does
nothing else. A predictor of the MobileNet space on Fashion-MNIST is calibrated on this processor
and kept in `.cache`; for targets between the smallest and largest predicted latency a relaxed
network is trained, and what it finds is measured. Rows go to `targets.csv`, and only those that it
lacks are computed; Spearman's correlation of target and measured latency, with an interval over the
rows (bootstrap), to `targets.md`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

import latency_predictors
import search_spaces
from nas import data, devices
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.recipe import Recipe
from nas.core.relaxation import Goal, RelaxationSettings
from nas.network.blocks import IntArray
from nas.network.trained import Preprocessing
from nas.training.relaxed import RelaxedJob, RelaxedTraining

HERE = Path(__file__).resolve().parent
ROWS, TABLE, PREDICTOR = HERE / "targets.csv", HERE / "targets.md", HERE / ".cache" / "predictor"
SAMPLES = 40


@dataclass(frozen=True)
class Predicted:
    """The predicted latencies of genotypes."""

    predictor: LatencyPredictor

    def __call__(self, genotypes: IntArray) -> FloatArray:
        return self.predictor.predict(genotypes).mean_ms


def main() -> None:
    """Compute the missing rows and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits = data.get(arguments.dataset).search_splits()
    shape = splits.input_shape
    space = search_spaces.get("mobilenet", input_shape=shape, num_classes=splits.task.output_size)
    device = devices.get("cpu", threads=1)
    if not PREDICTOR.is_dir():
        latency_predictors.calibrate(space, device, samples=SAMPLES, seed=0).save(PREDICTOR)
    cost = Predicted(latency_predictors.load(PREDICTOR))
    random_ms = cost(space.samples(2000, np.random.default_rng(0)))
    targets = np.geomspace(random_ms.min(), random_ms.max(), arguments.targets)
    job = RelaxedJob(
        space=space,
        train=splits.train,
        preprocessing=Preprocessing.of(splits.train),
        recipe=Recipe.of(augmentation={"flip": True}),
        settings=RelaxationSettings(epochs=arguments.epochs, train_samples=arguments.images),
        cost=cost,
    )
    rows = pd.read_csv(ROWS) if ROWS.is_file() else pd.DataFrame(columns=["number", "seed"])
    done = set(rows[["number", "seed"]].itertuples(index=False, name=None))
    for seed in range(arguments.seeds):
        for number, target in enumerate(targets.tolist()):
            if (number, seed) in done:
                continue
            started = time.process_time()
            training = RelaxedTraining(job, Goal(target, seed), torch.device("cpu"))
            while training.taken < training.total:
                training.take()
            took_s = time.process_time() - started
            genotype = training.genotype
            measured = device.measure(space.build(genotype).eval(), shape)
            row = {
                "number": number,
                "seed": seed,
                "target_ms": target,
                "predicted_ms": float(cost(np.array([genotype]))[0]),
                "measured_ms": measured.latency_ms,
                "macs_m": float(space.costs([genotype])["macs_m"].iloc[0]),
                "certainty": round(training.certainty, 3),
                "processor_s": round(took_s, 1),
            }
            rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
            rows.to_csv(ROWS, index=False)
            print(row, flush=True)
    rng = np.random.default_rng(0)
    summary = []
    for column in ("predicted_ms", "measured_ms"):
        own = spearmanr(rows["target_ms"], rows[column])[0]
        drawn = [rows.iloc[rng.integers(len(rows), size=len(rows))] for _ in range(1000)]
        low, high = np.quantile(
            [spearmanr(d["target_ms"], d[column])[0] for d in drawn], [0.025, 0.975]
        )
        off = (rows[column] / rows["target_ms"] - 1).abs().median()
        summary.append(
            {
                "latency": column,
                "networks": len(rows),
                "Spearman": f"{own:.3f}",
                "95 % interval": f"{low:.3f} to {high:.3f}",
                "median deviation from the target": f"{100 * off:.1f} %",
            }
        )
    TABLE.write_text(markdown(pd.DataFrame(summary)), encoding="utf-8")


if __name__ == "__main__":
    main()
