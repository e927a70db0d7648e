"""What `run.py` measured, taken apart: pace of the machine, process, prediction.

Usage: python experiments/latency_predictors/drift.py SPACE [FOLDER]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.accuracy import SPACES

import nas.devices
import search_spaces
from nas.core.measurement import Measurement
from nas.core.prediction import FloatArray
from nas.devices.store import MeasurementStore

SECONDS = 0.5


def recalled(space: str, part: pd.DataFrame, store: MeasurementStore) -> list[Measurement]:
    """Return the measurements of a table's networks."""
    of_space, device = search_spaces.get(space, **SPACES[space]), nas.devices.get("cpu")
    genotypes = [tuple(map(int, text.split())) for text in part["genotype"]]
    names = [of_space.architecture(genotype).arch_id for genotype in genotypes]
    found = [store.find(device, name, SECONDS, memory=False) for name in names]
    if any(measurement is None for measurement in found):
        raise SystemExit(f"{store.folder}: not all networks are in the store; run the benchmark")
    return [measurement for measurement in found if measurement is not None]


def at_one_pace(measurements: Sequence[Measurement]) -> list[FloatArray]:
    """Return the logarithms of all samples less the pace of their round.

    Networks of one session are timed in the same rounds, so the pace of a round is the median
    deviation of its networks from their own medians.
    """
    sessions = defaultdict(list)
    for i, measurement in enumerate(measurements):
        sessions[measurement.environment["timestamp_utc"]].append(i)
    logs = [np.log(measurement.samples_ms) for measurement in measurements]
    for members in sessions.values():
        table = np.full((len(members), max(len(logs[i]) for i in members)), np.nan)
        for row, i in enumerate(members):
            table[row, : len(logs[i])] = logs[i]
        pace = np.zeros(table.shape[1])
        for _ in range(5):
            own = np.nanmedian(table - pace, axis=1, keepdims=True)
            pace = np.nanmedian(table - own, axis=0)
        for i in members:
            logs[i] = logs[i] - pace[: len(logs[i])]
    return logs


def main(space: str, folder: Path) -> None:
    """Print where the differences come from, in %."""
    store = MeasurementStore(folder / "measurements")
    table = pd.read_csv(folder / f"{space}_networks.csv")
    held_out = table[table["part"] == "held out"]
    first = recalled(space, held_out, store)
    second = recalled(space, held_out, MeasurementStore(store.folder / "again"))
    calibration = recalled(space, table[table["part"] == "calibration"], store)

    halves = [
        np.median(log[: len(log) // 2]) - np.median(log[len(log) // 2 :])
        for log in at_one_pace(first)
    ]
    repeated = np.log([b.latency_ms / a.latency_ms for a, b in zip(first, second, strict=True)])
    print(
        f"halves of a measurement differ by {100 * np.std(halves):.2f} (std, common pace removed)"
    )
    print(
        f"two measurements differ by {100 * np.std(repeated):.2f} (std) "
        f"and a common shift of {100 * np.median(repeated):.2f}"
    )
    reference_ms = np.median([m.environment["sentinel_ms"] for m in calibration])
    predicted = np.log(held_out["latency_ms_predicted"].to_numpy())
    for power in (0.0, 0.5, 1.0):
        measured = [
            np.mean(
                [
                    m.latency_ms * (reference_ms / m.environment["sentinel_ms"]) ** power
                    for m in both
                ]
            )
            for both in zip(first, second, strict=True)
        ]
        error = predicted - np.log(measured)
        shift = np.median(error)
        print(
            f"sentinel^{power}: within 5 % {100 * np.mean(np.abs(error) <= 0.05):.1f}, "
            f"shift {100 * shift:.1f}, std {100 * error.std():.1f}; without the shift within "
            f"5 / 10 % {100 * np.mean(np.abs(error - shift) <= 0.05):.1f} / "
            f"{100 * np.mean(np.abs(error - shift) <= 0.1):.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "experiments/latency_predictors"))
