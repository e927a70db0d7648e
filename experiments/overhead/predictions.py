"""Seconds that predicting latency takes, by the number of architectures asked for at once.

A predictor is fitted to made-up latencies: what a prediction costs does not depend on them. The
first call meets blocks that no calibration sample has, and splits them into kernels.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

import latency_predictors
import search_spaces

SPACES = ("mobilenet", "vit", "darts")
SIZES = (200, 1000, 5000, 10_000)
REPEATS = 7


def main() -> None:
    """Print and write medians of `REPEATS` calls."""
    records = {}
    for name in SPACES:
        space = search_spaces.get(name, input_shape=(3, 32, 32), num_classes=10)
        rng = np.random.default_rng(0)
        samples = space.samples(100, rng)
        latency_ms = 0.2 + 0.01 * space.costs(samples)["macs_m"].to_numpy(float)
        predictor = latency_predictors.get("kernels").fit(space, samples, latency_ms)
        seconds = {"first 5000": [_seconds(predictor, space.samples(5000, rng))]}
        for size in SIZES:
            batches = [space.samples(size, rng) for _ in range(REPEATS)]
            seconds[str(size)] = [_seconds(predictor, batch) for batch in batches]
        records[name] = {size: float(np.median(taken)) for size, taken in seconds.items()}
        print(name, ", ".join(f"{size}: {s:.3g} s" for size, s in records[name].items()))
    path = Path(__file__).with_name("predictions.json")
    path.write_text(json.dumps(records, indent=2) + "\n", "utf-8")


def _seconds(predictor: object, genotypes: np.ndarray) -> float:
    started = time.perf_counter()
    predictor.predict(genotypes)  # type: ignore[attr-defined]
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
