"""How accurate predictors are by the number of measured networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from latency_predictors import get
from latency_predictors.accuracy.scores import coverage_percent, scores
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.space import SearchSpace

COVERAGE = 0.9

COMPARED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "macs": ("macs", {}),
    "ridge": ("ridge", {}),
    "block_table, plain": ("block_table", {"corrections": False}),
    "block_table": ("block_table", {}),
    "gaussian_process": ("gaussian_process", {}),
    "kernels": ("kernels", {}),
}
"""What the learning curve compares, by label: a predictor's name and settings."""


def learning_curve(
    space: SearchSpace,
    pool: tuple[Sequence[Genotype], FloatArray],
    held_out: tuple[Sequence[Genotype], FloatArray],
    sizes: Sequence[int],
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Return accuracies by number of samples, drawn at random from a measured pool.

    Args:
        space: Of the networks.
        pool: Measured networks to draw from, and their latencies in milliseconds.
        held_out: Measured networks to predict, and their latencies.
        sizes: Numbers of samples.
        draws: Of the samples, for each number.
        seed: Of the draws.
    """
    rows = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(pool[0]))
        for size in sizes:
            picked = order[:size]
            if len(picked) < size:
                continue
            genotypes = [pool[0][i] for i in picked]
            for label, (name, settings) in COMPARED.items():
                fitted = get(name, **settings).fit(space, genotypes, pool[1][picked])
                prediction = fitted.predict(held_out[0])
                covered = coverage_percent(prediction, held_out[1], COVERAGE)
                rows.append(
                    {"predictor": label, "samples": size, "draw": draw}
                    | scores(prediction.mean_ms, held_out[1])
                    | {"coverage_percent": covered}
                )
    return pd.DataFrame(rows)
