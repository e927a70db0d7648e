"""How accurate latency predictors are: on fresh networks, near the front, by number of samples.

What is measured is kept in a store, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from latency_predictors import PredictorSettings
from latency_predictors.accuracy.curve import COVERAGE, learning_curve
from latency_predictors.accuracy.front import near_front
from latency_predictors.accuracy.scores import coverage_percent, scores
from latency_predictors.calibration.memory import PeakMemory, measured_memory
from latency_predictors.calibration.sampling import measure_genotypes, measure_samples
from nas.core.measurement import Device, Measurement
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

SPEED_GENOTYPES = 1_000_000
REPEATED = 60
"""Networks whose peak memory is measured a second time."""

_HELD_OUT, _FRONT, _ADDITIVITY, _CURVE = range(4)
"""Purposes of random streams."""


@dataclass(frozen=True, kw_only=True)
class AccuracySettings:
    """How much is measured.

    Attributes:
        samples: Networks of the calibration.
        held_out: Fresh random networks, each measured twice.
        near_front: Networks near the front of latency against MACs.
        extra: Further random networks for the learning curve.
        quadruples: Of networks for the test of additivity.
        sizes: Numbers of samples of the learning curve.
        draws: Of the samples for each size.
        seconds: Most seconds of timed inference of a network.
        seed: Of everything random.
    """

    samples: int = 100
    held_out: int = 200
    near_front: int = 60
    extra: int = 150
    quadruples: int = 15
    sizes: tuple[int, ...] = (10, 20, 50, 100, 200)
    draws: int = 5
    seconds: float = 0.5
    seed: int = 0


@dataclass
class AccuracyReport:
    """What was found for one space.

    Attributes:
        summary: Figures by name.
        networks: One row a measured network, with what was predicted.
        curve: One row for each predictor, number of samples and draw.
        predictor: The calibrated predictor.
    """

    summary: dict[str, Any]
    networks: pd.DataFrame
    curve: pd.DataFrame
    predictor: LatencyPredictor = field(repr=False)


def evaluate(
    space: SearchSpace,
    device: Device,
    predictor: PredictorSettings,
    store: MeasurementStore,
    settings: AccuracySettings,
    progress: Callable[[str], None],
) -> AccuracyReport:
    """Calibrate a predictor and hold it against fresh measurements.

    Args:
        space: Of the networks.
        device: Where they are measured.
        predictor: What is calibrated; its number of samples is that of `settings`.
        store: Of what was measured.
        settings: How much is measured.
        progress: Told what comes next.
    """
    run = _Run(space, device, store, settings)
    progress(f"calibrating on {settings.samples} networks")
    start = time.perf_counter()
    sampled, taken = measure_samples(space, device, predictor, settings.seed, store, memory=True)
    sampled_ms = _latencies(taken)
    measured_seconds = time.perf_counter() - start
    fitted = predictor.fit(space, sampled, sampled_ms)
    calibration_seconds = time.perf_counter() - start
    progress(f"measuring {settings.held_out} fresh networks, twice")
    held_out = run.fresh(settings.held_out, _HELD_OUT, sampled)
    of_held_out = run.measurements(held_out, memory=True)
    first, second = _latencies(of_held_out), run.measure(held_out, again=True)
    progress(f"measuring {settings.near_front} networks near the front")
    front = near_front(space, fitted, settings.near_front, _stream(settings.seed, _FRONT))
    at_front = run.measure(front)
    progress(f"measuring {4 * settings.quadruples} networks for the test of additivity")
    additivity = run.additivity()
    progress(f"measuring {settings.extra} more networks for the learning curve")
    extra = run.fresh(settings.extra, _CURVE, [*sampled, *held_out])
    pool, pool_ms = [*sampled, *extra], np.concatenate([sampled_ms, run.measure(extra)])
    truth = (first + second) / 2
    prediction = fitted.predict(held_out)
    low, high = prediction.interval_ms(COVERAGE)
    noise = np.abs(second / first - 1)
    summary = {
        "calibration_networks": len(sampled),
        "calibration_seconds": calibration_seconds,
        "measuring_seconds": measured_seconds,
        "compared": dict(fitted.compared),
        "latency_ms": [float(truth.min()), float(np.median(truth)), float(truth.max())],
        "held_out": scores(prediction.mean_ms, truth),
        "held_out_against_one_measurement": scores(prediction.mean_ms, first),
        "noise_ceiling": scores(second, first),
        "noise_p95_percent": float(100 * np.percentile(noise, 95)),
        "coverage_percent": coverage_percent(prediction, truth, COVERAGE),
        "interval_half_width_percent": float(100 * np.median((high - low) / 2 / truth)),
        "near_front": scores(fitted.predict(front).mean_ms, at_front),
        "additivity": additivity,
        "peak_memory": run.memory((sampled, taken), (held_out, of_held_out)),
        "genotypes_per_second": speed(space, fitted),
    }
    progress("fitting the learning curve")
    curve = learning_curve(
        space,
        (pool, pool_ms),
        (held_out, truth),
        settings.sizes,
        settings.draws,
        settings.seed,
    )
    networks = pd.concat(
        [
            _table("held out", held_out, prediction.mean_ms, first, second),
            _table("near the front", front, fitted.predict(front).mean_ms, at_front, None),
            _table("calibration", sampled, fitted.predict(sampled).mean_ms, sampled_ms, None),
        ]
    )
    return AccuracyReport(summary, networks, curve, fitted)


def _stream(*seed: int) -> np.random.Generator:
    return np.random.default_rng([*seed, 2])


def _latencies(measurements: Sequence[Measurement]) -> FloatArray:
    return np.array([m.latency_ms for m in measurements])


def _table(
    part: str,
    genotypes: Sequence[Genotype],
    predicted_ms: FloatArray,
    measured_ms: FloatArray,
    again_ms: FloatArray | None,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "part": part,
            "genotype": [" ".join(map(str, genotype)) for genotype in genotypes],
            "latency_ms_predicted": predicted_ms,
            "latency_ms_measured": measured_ms,
            "latency_ms_measured_again": np.nan if again_ms is None else again_ms,
        }
    )


@dataclass(frozen=True)
class _Run:
    """Measures networks in portions, each of which is kept when it is done."""

    space: SearchSpace
    device: Device
    store: MeasurementStore
    settings: AccuracySettings

    def measure(self, genotypes: Sequence[Genotype], *, again: bool = False) -> FloatArray:
        return _latencies(self.measurements(genotypes, again=again))

    def measurements(
        self, genotypes: Sequence[Genotype], *, again: bool = False, memory: bool = False
    ) -> list[Measurement]:
        # A second measurement is one of its own in the store.
        store = MeasurementStore(self.store.folder / "again") if again else self.store
        return measure_genotypes(
            self.space,
            self.device,
            genotypes,
            seconds=self.settings.seconds,
            memory=memory,
            seed=self.settings.seed + again,
            store=store,
        )

    def fresh(self, n: int, purpose: int, known: Sequence[Genotype]) -> list[Genotype]:
        """Draw random networks that are not known."""
        rng = _stream(self.settings.seed, purpose)
        drawn = dict.fromkeys(known)
        while len(drawn) < len(known) + n:
            drawn.setdefault(self.space.sample(rng))
        return list(drawn)[len(known) :]

    def additivity(self) -> dict[str, float]:
        """Change two genes apart and together: is the sum of the changes the change of both?

        Returns:
            Median and 95th percentile of what is missing, in % of the latency.
        """
        rng = _stream(self.settings.seed, _ADDITIVITY)
        quadruples: list[list[Genotype]] = []
        while len(quadruples) < self.settings.quadruples:
            base, one, other = (self.space.sample(rng) for _ in range(3))
            active = np.flatnonzero(self.space.active(base))
            i, j = rng.choice(active, 2, replace=False)
            rows = np.array([base] * 4)
            rows[[1, 3], i], rows[[2, 3], j] = one[i], other[j]
            four = [self.space.canonical(row.tolist()) for row in rows]
            if len(set(four)) == 4:
                quadruples.append(four)
        flat = [genotype for four in quadruples for genotype in four]
        base_ms, one_ms, other_ms, both_ms = self.measure(flat).reshape(-1, 4).T
        missing = 100 * np.abs(both_ms - one_ms - other_ms + base_ms) / both_ms
        return {
            "median_percent": float(np.median(missing)),
            "p95_percent": float(np.percentile(missing, 95)),
        }

    def memory(
        self,
        calibration: tuple[Sequence[Genotype], Sequence[Measurement]],
        held_out: tuple[Sequence[Genotype], Sequence[Measurement]],
    ) -> dict[str, Any] | None:
        """Hold predicted peak memory against measured; `None` where it cannot be measured."""
        (sampled, taken), (genotypes, fresh) = calibration, held_out
        if not measured_memory([*taken, *fresh]):
            return None
        fitted = PeakMemory.fit(self.space, sampled, taken)
        peak_mb = np.array([m.peak_memory_mb for m in fresh], float)
        again = self.measurements(genotypes[:REPEATED], again=True, memory=True)
        again_mb = np.array([m.peak_memory_mb for m in again], float)
        return scores(fitted.predict_mb(genotypes), peak_mb) | {
            "repeated": scores(again_mb, peak_mb[:REPEATED]),
            "flash": _flash(self.space, genotypes, fresh),
        }


def _flash(
    space: SearchSpace, genotypes: Sequence[Genotype], measurements: Sequence[Measurement]
) -> dict[str, float]:
    """Return by how many percent files are larger than the weights that are counted."""
    files_mb = np.array([m.model_size_mb for m in measurements], float)
    larger = 100 * (files_mb / space.costs(genotypes)["model_size_mb"].to_numpy(float) - 1)
    return {"median_percent": float(np.median(larger)), "largest_percent": float(larger.max())}


def speed(space: SearchSpace, predictor: LatencyPredictor) -> float:
    """Return how many genotypes a second are predicted, given as an array."""
    sizes = (SPEED_GENOTYPES, len(space.genes))
    genotypes = np.random.default_rng(0).integers(0, space.cardinalities, sizes)
    predictor.predict(genotypes[:1000])
    start = time.perf_counter()
    predictor.predict(genotypes)
    return SPEED_GENOTYPES / (time.perf_counter() - start)
