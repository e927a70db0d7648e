"""How accurate a calibrated predictor is, beside what a second measurement scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from latency_predictors.calibration.sampling import measure_genotypes
from nas.core.measurement import Device
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

REPEATED = 20
"""Networks of a calibration that are measured a second time."""


def scores(predicted_ms: FloatArray, measured_ms: FloatArray) -> dict[str, float]:
    """Return how near predictions are to measured latencies, both of shape `(n,)`.

    Returns:
        `within_5_percent` and `within_10_percent` (shares of the predictions, in %),
        `median_error_percent`, `largest_error_percent` and `spearman`.
    """
    from scipy.stats import spearmanr

    errors = 100 * np.abs(predicted_ms / measured_ms - 1)
    return {
        "within_5_percent": float(100 * np.mean(errors <= 5)),
        "within_10_percent": float(100 * np.mean(errors <= 10)),
        "median_error_percent": float(np.median(errors)),
        "largest_error_percent": float(errors.max()),
        "spearman": float(spearmanr(predicted_ms, measured_ms).statistic),
    }


def held_out_accuracy(
    predictor: LatencyPredictor,
    space: SearchSpace,
    device: Device,
    genotypes: Sequence[Genotype],
    latency_ms: FloatArray,
    *,
    store: MeasurementStore,
    seconds: float,
    seed: int,
    on_progress: Callable[[int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Score held-out predictions, and a second measurement of some of the same networks.

    No predictor can be expected to score better than a second measurement does: that is the noise
    ceiling of the device.

    Args:
        predictor: Fitted to the samples.
        space: Of the networks.
        device: Where they were measured, and up to `REPEATED` of them are measured again.
        genotypes: All samples of the calibration.
        latency_ms: Their latencies, shape `(n,)`.
        store: Of the first measurements; the second ones are kept in its folder `again`.
        seconds: Most seconds of timed inference of a network.
        seed: Of the order of the second measurements.
        on_progress: See `measure_genotypes`.

    Returns:
        One row for the predictions of each sample from the others, and one for the second
        measurement: `latency` (what is scored), `networks` and the `scores`.
    """
    predicted_ms = latency_ms * (1 + predictor.held_out_errors())
    count = min(REPEATED, len(genotypes))
    chosen = np.linspace(0, len(genotypes) - 1, count).round().astype(int)
    again = measure_genotypes(
        space,
        device,
        [genotypes[i] for i in chosen],
        seconds=seconds,
        seed=seed,
        store=MeasurementStore(store.folder / "again"),
        on_progress=on_progress,
    )
    again_ms = np.array([m.latency_ms for m in again])
    predicted = {"latency": "predicted from the other samples", "networks": len(genotypes)}
    repeated = {"latency": "measured a second time", "networks": count}
    return [
        predicted | scores(predicted_ms, latency_ms),
        repeated | scores(again_ms, latency_ms[chosen]),
    ]
