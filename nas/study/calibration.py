"""A calibrated latency predictor, with what it rests on and what it cost, in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import latency_predictors
from latency_predictors import PredictorSettings
from latency_predictors.calibration import sampling
from nas.core.measurement import Device
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.seeding import stream
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace


@dataclass(frozen=True)
class Calibration:
    """What lies in the folder of a calibrated predictor.

    Attributes:
        predictor: The predictor.
        cost: Networks `measured` and `reused` from the store, `seconds` of the whole and
            `seconds_reused`, which the reused ones took when they were measured;
            `relative_ci_percent`, the median half width of a measurement's 95 % interval.
    """

    predictor: LatencyPredictor
    cost: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """Read what `calibrate` has left."""
        return cls(latency_predictors.load(folder), sampling.load_samples(folder)[2])


def is_calibrated(folder: Path) -> bool:
    """Return whether `calibrate` came to its end in `folder`."""
    return (folder / "predictor.json").is_file()


def calibrate(
    space: SearchSpace,
    device: Device,
    settings: PredictorSettings,
    *,
    seed: int,
    store: MeasurementStore,
    folder: Path,
) -> Calibration:
    """Measure some networks, unless the store has them, and fit a predictor to them.

    Args:
        space: Where the networks come from.
        device: Where they are measured.
        settings: Of the predictor.
        seed: Of the study; equal seeds choose equal networks.
        store: What is in it is not measured again; an interrupted calibration goes on from it.
        folder: Receives the samples and the predictor.
    """
    started = time.monotonic()
    before = (store.tally.taken, store.tally.reused, store.tally.reused_s)
    choice = int(stream(seed, "calibration").integers(2**31))
    genotypes, measurements = sampling.measure_samples(space, device, settings, choice, store)
    predictor = settings.fit(space, genotypes, np.array([m.latency_ms for m in measurements]))
    cost = {
        "measured": store.tally.taken - before[0],
        "reused": store.tally.reused - before[1],
        "seconds": time.monotonic() - started,
        "seconds_reused": store.tally.reused_s - before[2],
        "relative_ci_percent": float(100 * np.median([m.relative_ci for m in measurements])),
    }
    sampling.save_samples(folder, genotypes, measurements, cost)
    predictor.save(folder)
    return Calibration(predictor, cost)


def accuracy_line(calibration: Calibration) -> str:
    """Return how well samples are predicted from the others, beside the noise of measuring."""
    errors = 100 * np.abs(calibration.predictor.held_out_errors())
    error, worst = np.percentile(errors, [50, 90])
    noise = calibration.cost["relative_ci_percent"]
    return (
        f"a sample is predicted from the others within {error:.1f} % (median) and "
        f"{worst:.1f} % (90 %); a measurement's 95 % interval is ±{noise:.1f} %"
    )


def learner(
    space: SearchSpace, settings: PredictorSettings, folder: Path
) -> Callable[[Sequence[Genotype], FloatArray], LatencyPredictor]:
    """Return a function that fits the predictor in `folder` again, with further samples.

    The function takes genotypes and their latencies in milliseconds, shape `(n,)`. What it fits to
    depends on them and on the folder alone, so that a search that goes on gets equal predictors.
    """
    calibrated = latency_predictors.load(folder)
    known, known_ms, _ = sampling.load_samples(folder)

    def learn(genotypes: Sequence[Genotype], latency_ms: FloatArray) -> LatencyPredictor:
        new = [i for i, genotype in enumerate(genotypes) if genotype not in known]
        every = [*known, *(genotypes[i] for i in new)]
        every_ms = np.concatenate([known_ms, latency_ms[new]])
        return settings.refit(calibrated, space, every, every_ms)

    return learn
