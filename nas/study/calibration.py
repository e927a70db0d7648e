"""A calibrated latency predictor, with what it rests on and what it cost, in a folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import latency_predictors
from latency_predictors.calibration import sampling
from latency_predictors.calibration.memory import PeakMemory, measured_memory
from nas.core.errors import DeviceError
from nas.core.measurement import Measurement
from nas.core.prediction import FloatArray, LatencyPredictor, MemoryPredictor
from nas.core.seeding import stream
from nas.core.space import Genotype
from nas.network.space import SearchSpace
from nas.search.adaptive_measurement import TimedMeasurement
from nas.study.settings import CalibrationSettings

MEMORY = "memory"
"""Folder of the predictor of peak memory, in that of the latency predictor."""


@dataclass(frozen=True)
class Calibration:
    """What lies in the folder of a calibrated predictor.

    Attributes:
        predictor: The predictor.
        memory: The predictor of peak memory, or `None` where memory was not asked for.
        cost: Networks `measured` and `reused` from the store, `seconds` of the whole and
            `seconds_reused`, which the reused ones took when they were measured;
            `relative_ci_percent`, the median half width of a measurement's 95 % interval.
    """

    predictor: LatencyPredictor
    memory: MemoryPredictor | None
    cost: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, space: SearchSpace) -> Calibration:
        """Read what `calibrate` has left.

        Raises:
            ConfigError: It was calibrated for another space, or for other code of the same.
        """
        cost = sampling.load_samples(folder, space)[2]
        memory = PeakMemory.load(folder / MEMORY) if (folder / MEMORY).is_dir() else None
        return cls(latency_predictors.load(folder), memory, cost)


def is_calibrated(folder: Path) -> bool:
    """Return whether `calibrate` came to its end in `folder`."""
    return (folder / "predictor.json").is_file()


def calibrate(settings: CalibrationSettings) -> Calibration:
    """Measure some networks, unless the store has them, and fit a predictor to them.

    Raises:
        DeviceError: The device cannot tell how much memory networks take.
    """
    space, store = settings.space, settings.store
    started = time.monotonic()
    before = dataclasses.replace(store.counts)
    choice = int(stream(settings.seed, "calibration").integers(2**31))
    genotypes, measurements = sampling.measure_samples(
        space, settings.device, settings.predictor, choice, store, memory=settings.memory
    )
    peak = _peak_memory(space, genotypes, measurements) if settings.memory else None
    latency_ms = np.array([m.latency_ms for m in measurements])
    predictor = settings.predictor.fit(space, genotypes, latency_ms)
    cost = {
        "measured": store.counts.taken - before.taken,
        "reused": store.counts.reused - before.reused,
        "seconds": time.monotonic() - started,
        "seconds_reused": store.counts.reused_s - before.reused_s,
        "relative_ci_percent": float(100 * np.median([m.relative_ci for m in measurements])),
    }
    sampling.save_samples(settings.folder, space, genotypes, measurements, cost)
    if peak is not None:
        peak.save(settings.folder / MEMORY)
    predictor.save(settings.folder)
    return Calibration(predictor, peak, cost)


def _peak_memory(
    space: SearchSpace, genotypes: Sequence[Genotype], measurements: Sequence[Measurement]
) -> PeakMemory:
    if not measured_memory(measurements):
        raise DeviceError(
            "objective peak_memory_mb: the device cannot tell how much memory a network takes; "
            "use counted_memory_mb"
        )
    return PeakMemory.fit(space, genotypes, measurements)


def accuracy_line(calibration: Calibration) -> str:
    """Return how well samples are predicted from the others, beside the noise of measuring."""
    errors = 100 * np.abs(calibration.predictor.held_out_errors())
    error, worst = np.percentile(errors, [50, 90])
    noise = calibration.cost["relative_ci_percent"]
    line = (
        f"a sample is predicted from the others within {error:.1f} % (median) and "
        f"{worst:.1f} % (90 %); a measurement's 95 % interval is ±{noise:.1f} %"
    )
    if calibration.memory is None:
        return line
    error, worst = np.percentile(100 * np.abs(calibration.memory.held_out_errors()), [50, 90])
    return f"{line}; its peak memory within {error:.1f} % and {worst:.1f} %"


def learner(
    settings: CalibrationSettings,
) -> Callable[[Sequence[Genotype], FloatArray], LatencyPredictor]:
    """Return a function that fits a calibrated predictor again, with further samples.

    The function takes genotypes and their latencies in milliseconds, shape `(n,)`. What it fits to
    depends on them and on the folder alone, so that a search that goes on gets equal predictors.
    """
    calibrated = latency_predictors.load(settings.folder)
    known, known_ms, _ = sampling.load_samples(settings.folder, settings.space)

    def learn(genotypes: Sequence[Genotype], latency_ms: FloatArray) -> LatencyPredictor:
        new = [i for i, genotype in enumerate(genotypes) if genotype not in known]
        every = [*known, *(genotypes[i] for i in new)]
        every_ms = np.concatenate([known_ms, latency_ms[new]])
        return settings.predictor.refit(calibrated, settings.space, every, every_ms)

    return learn


def measurer(settings: CalibrationSettings) -> Callable[[Genotype], TimedMeasurement]:
    """Return a function that measures a network as a calibration does, unless the store has it."""

    def measure(genotype: Genotype) -> TimedMeasurement:
        started, before = time.monotonic(), dataclasses.replace(settings.store.counts)
        [measurement] = sampling.measure_genotypes(
            settings.space,
            settings.device,
            [genotype],
            seconds=settings.predictor.seconds_per_sample,
            seed=settings.seed,
            store=settings.store,
        )
        reused = settings.store.counts.reused > before.reused
        reused_s = settings.store.counts.reused_s - before.reused_s
        took_s = reused_s if reused else time.monotonic() - started
        return TimedMeasurement(measurement=measurement, seconds=took_s, reused=reused)

    return measure
