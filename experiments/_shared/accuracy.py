"""What the experiments on predictors share: spaces, samples of measured networks, scores."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latency_predictors.calibration.sampling import measure_genotypes
from nas.core.errors import UnknownNameError
from nas.core.measurement import Device, Measurement
from nas.core.prediction import FloatArray, Prediction
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

SPACES: dict[str, dict[str, Any]] = {
    "mobilenet": {"input_shape": (3, 64, 64), "num_classes": 10},
    "vit": {"input_shape": (3, 64, 64), "num_classes": 10},
    "darts": {"input_shape": (3, 32, 32), "num_classes": 10},
}
"""The spaces that are compared, with settings for which a network takes up to some milliseconds."""

COLUMNS = {
    "within_5_percent": "within 5 %",
    "within_10_percent": "within 10 %",
    "median_error_percent": "median error %",
    "largest_error_percent": "largest %",
    "spearman": "Spearman",
}
"""Headings of the scores."""


@dataclass(frozen=True)
class Sample:
    """Measured networks.

    Attributes:
        genotypes: Of the networks.
        measurements: In the same order.
    """

    genotypes: Sequence[Genotype]
    measurements: Sequence[Measurement]

    @property
    def latency_ms(self) -> FloatArray:
        """Measured latencies, shape `(n,)`."""
        return np.array([m.latency_ms for m in self.measurements])

    @property
    def peak_memory_mb(self) -> FloatArray:
        """Measured peaks, shape `(n,)`."""
        return np.array([m.peak_memory_mb for m in self.measurements], float)


def fresh(
    space: SearchSpace, n: int, rng: np.random.Generator, known: Sequence[Genotype]
) -> list[Genotype]:
    """Draw `n` distinct random networks that are not `known`."""
    drawn = dict.fromkeys(known)
    while len(drawn) < len(known) + n:
        drawn.setdefault(space.sample(rng))
    return list(drawn)[len(known) :]


def measured(
    space: SearchSpace,
    device: Device,
    genotypes: Sequence[Genotype],
    store: MeasurementStore,
    *,
    seconds: float,
    seed: int,
    memory: bool = False,
    again: bool = False,
) -> Sample:
    """Measure networks, or recall from the store what was measured.

    Args:
        space: Of the networks.
        device: Where they are measured.
        genotypes: Which networks.
        store: Of what is measured.
        seconds: Most seconds of timed inference of each.
        seed: Of the order of the measurements.
        memory: Whether to measure peak memory as well.
        again: Whether this is a second measurement, which has a store of its own.
    """
    taken = measure_genotypes(
        space,
        device,
        genotypes,
        seconds=seconds,
        memory=memory,
        seed=seed + again,
        store=MeasurementStore(store.folder / "again") if again else store,
    )
    return Sample(genotypes, taken)


def coverage_percent(prediction: Prediction, measured_ms: FloatArray, coverage: float) -> float:
    """Return the share of measured latencies within their interval, in %."""
    low, high = prediction.interval_ms(coverage)
    return float(100 * np.mean((low <= measured_ms) & (measured_ms <= high)))


def accuracy_rows(summary: dict[str, Any], heading: str, rows: dict[str, str]) -> pd.DataFrame:
    """Return scores for reading.

    Args:
        summary: Scores by name, and the name of their `space`.
        heading: Of the column that says what is scored.
        rows: Labels by the name in `summary`.
    """
    return pd.DataFrame(
        [
            {"space": summary["space"], heading: label}
            | {column: summary[key][score] for score, column in COLUMNS.items()}
            for key, label in rows.items()
        ]
    )


def arguments(about: str, out: Path) -> argparse.Namespace:
    """Return `spaces`, `device` and `out` of the command line.

    Args:
        about: What the script does.
        out: Default folder of its results.

    Raises:
        UnknownNameError: A space is not one of `SPACES`.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spaces", metavar="SPACE", nargs="*", help=f"of {', '.join(SPACES)}")
    parser.add_argument("--device", default="cpu", help="name of a device (default: cpu)")
    parser.add_argument("--out", type=Path, default=out, help="folder of the results")
    given = parser.parse_args()
    for name in given.spaces:
        if name not in SPACES:
            raise UnknownNameError("space", name, SPACES)
    given.spaces = given.spaces or list(SPACES)
    return given


class Progress:
    """Tells what is being done, with the time."""

    def __init__(self, name: str) -> None:
        """Begin every line with `name`."""
        self._name = name
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print a line to the standard error."""
        sys.stderr.write(f"{self._name}, {time.monotonic() - self._start:5.0f} s: {line}\n")
