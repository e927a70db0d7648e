"""How accurate latency predictors are: on fresh networks, near the front, by number of samples.

What is measured is kept in a store, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from _shared.accuracy import Sample, coverage_percent, fresh, measured

import latency_predictors
from latency_predictors import PredictorSettings
from latency_predictors.calibration.accuracy import scores
from latency_predictors.calibration.sampling import measure_samples
from nas.core.measurement import Device
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.blocks import IntArray
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

GENERATIONS = 30
POPULATION = 512
"""Of the evolution towards the front."""

SPEED_GENOTYPES = 1_000_000
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
        seed: Of everything random; 0 was used while the predictors were made.
    """

    samples: int = 100
    held_out: int = 200
    near_front: int = 50
    extra: int = 100
    quadruples: int = 10
    sizes: tuple[int, ...] = (10, 20, 50, 100, 200)
    draws: int = 5
    seconds: float = 0.5
    seed: int = 1


@dataclass(frozen=True)
class Measured:
    """What was measured for one space.

    Attributes:
        space: Of the networks.
        settings: How much was measured.
        predictor: Fitted to the calibration.
        seconds: That the calibration took: measuring, with export, and fitting.
        calibration: Networks that the predictor was fitted to.
        held_out: Fresh random networks.
        again: A second measurement of them.
        near_front: Networks where a search ends up.
        quadruples: Networks, two that differ from the first in one gene each, and one in both.
        extra: Further random networks.
    """

    space: SearchSpace
    settings: AccuracySettings
    predictor: LatencyPredictor
    seconds: Mapping[str, float]
    calibration: Sample
    held_out: Sample
    again: Sample
    near_front: Sample
    quadruples: Sample
    extra: Sample


@dataclass
class AccuracyReport:
    """What was found for one space.

    Attributes:
        summary: Figures by name.
        networks: One row a measured network, with what was predicted.
        curve: One row for each predictor, number of samples and draw.
    """

    summary: dict[str, Any]
    networks: pd.DataFrame
    curve: pd.DataFrame


def measure(
    space: SearchSpace,
    device: Device,
    predictor: PredictorSettings,
    store: MeasurementStore,
    settings: AccuracySettings,
    progress: Callable[[str], None],
) -> Measured:
    """Calibrate a predictor and measure what it is held against; needs a quiet device.

    Args:
        space: Of the networks.
        device: Where they are measured.
        predictor: What is calibrated; its number of samples is that of `settings`.
        store: Of what is measured; what is in it is not measured again.
        settings: How much is measured.
        progress: Told what comes next.
    """
    run = _Run(space, device, store, settings)
    progress(f"calibrating on {settings.samples} networks")
    # What was measured before counts with the seconds that it took then.
    before = store.counts.taken_s + store.counts.reused_s
    start = time.perf_counter()
    waited = store.counts.taken_s
    calibration = Sample(*measure_samples(space, device, predictor, settings.seed, store))
    choosing = time.perf_counter() - start - (store.counts.taken_s - waited)
    measuring = store.counts.taken_s + store.counts.reused_s - before
    start = time.perf_counter()
    fitted = predictor.fit(space, calibration.genotypes, calibration.latency_ms)
    fitting = choosing + time.perf_counter() - start
    progress(f"measuring {settings.held_out} fresh networks, twice")
    held_out = run.fresh(settings.held_out, _HELD_OUT, calibration.genotypes)
    first = run.sample(held_out)
    again = run.sample(held_out, again=True)
    progress(f"measuring {settings.near_front} networks near the front")
    front = near_front(space, fitted, settings.near_front, _stream(settings.seed, _FRONT))
    at_front = run.sample(front)
    progress(f"measuring {4 * settings.quadruples} networks for the test of additivity")
    quadruples = run.sample(run.quadruples())
    progress(f"measuring {settings.extra} more networks for the learning curve")
    extra = run.fresh(settings.extra, _CURVE, [*calibration.genotypes, *held_out])
    return Measured(
        space=space,
        settings=settings,
        predictor=fitted,
        seconds={"measuring": measuring, "fitting": fitting},
        calibration=calibration,
        held_out=first,
        again=again,
        near_front=at_front,
        quadruples=quadruples,
        extra=run.sample(extra),
    )


def evaluate(of_space: Measured) -> AccuracyReport:
    """Hold the predictor, and others by number of samples, against what was of_space."""
    settings, fitted = of_space.settings, of_space.predictor
    first, second = of_space.held_out.latency_ms, of_space.again.latency_ms
    truth = (first + second) / 2
    held_out = of_space.held_out.genotypes
    prediction = fitted.predict(held_out)
    low, high = prediction.interval_ms(COVERAGE)
    noise = np.abs(second / first - 1)
    at_front = fitted.predict(of_space.near_front.genotypes).mean_ms
    summary = {
        "calibration_networks": len(of_space.calibration.genotypes),
        "calibration_seconds": sum(of_space.seconds.values()),
        "seconds": dict(of_space.seconds),
        "compared": dict(fitted.compared),
        "latency_ms": [float(truth.min()), float(np.median(truth)), float(truth.max())],
        "held_out": scores(prediction.mean_ms, truth),
        "held_out_against_one_measurement": scores(prediction.mean_ms, first),
        "noise_ceiling": scores(second, first),
        "noise_p95_percent": float(100 * np.percentile(noise, 95)),
        "coverage_percent": coverage_percent(prediction, truth, COVERAGE),
        "interval_half_width_percent": float(100 * np.median((high - low) / 2 / truth)),
        "near_front": scores(at_front, of_space.near_front.latency_ms),
        "additivity": _additivity(of_space.quadruples),
        "genotypes_per_second": speed(of_space.space, fitted),
    }
    pool = [*of_space.calibration.genotypes, *of_space.extra.genotypes]
    pool_ms = np.concatenate([of_space.calibration.latency_ms, of_space.extra.latency_ms])
    curve = learning_curve(
        of_space.space,
        (pool, pool_ms),
        (held_out, truth),
        settings.sizes,
        settings.draws,
        settings.seed,
    )
    best = min(fitted.compared, key=fitted.compared.__getitem__) if fitted.compared else None
    draws = curve[(curve["predictor"] == best) & (curve["samples"] == settings.samples)]
    summary["coverage_percent_over_draws"] = float(draws["coverage_percent"].mean())
    calibration = of_space.calibration
    in_sample = fitted.predict(calibration.genotypes).mean_ms
    networks = pd.concat(
        [
            _table("held out", of_space.held_out, prediction.mean_ms, second),
            _table("near the front", of_space.near_front, at_front, None),
            _table("calibration", calibration, in_sample, None),
        ]
    )
    return AccuracyReport(summary, networks, curve)


def _stream(*seed: int) -> np.random.Generator:
    return np.random.default_rng([*seed, 2])


def _additivity(quadruples: Sample) -> dict[str, float]:
    """Is the sum of two changes the change of both?

    Returns:
        Median and 95th percentile of what is missing, in % of the latency.
    """
    base_ms, one_ms, other_ms, both_ms = quadruples.latency_ms.reshape(-1, 4).T
    missing = 100 * np.abs(both_ms - one_ms - other_ms + base_ms) / both_ms
    return {
        "median_percent": float(np.median(missing)),
        "p95_percent": float(np.percentile(missing, 95)),
    }


def _table(
    part: str, sample: Sample, predicted_ms: FloatArray, again_ms: FloatArray | None
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "part": part,
            "genotype": [" ".join(map(str, genotype)) for genotype in sample.genotypes],
            "latency_ms_predicted": predicted_ms,
            "latency_ms_measured": sample.latency_ms,
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

    def sample(self, genotypes: Sequence[Genotype], *, again: bool = False) -> Sample:
        seconds, seed = self.settings.seconds, self.settings.seed
        return measured(
            self.space, self.device, genotypes, self.store, seconds=seconds, seed=seed, again=again
        )

    def fresh(self, n: int, purpose: int, known: Sequence[Genotype]) -> list[Genotype]:
        """Draw random networks that are not known."""
        return fresh(self.space, n, _stream(self.settings.seed, purpose), known)

    def quadruples(self) -> list[Genotype]:
        """Draw networks, two that differ from each in one gene, and one that differs in both."""
        rng = _stream(self.settings.seed, _ADDITIVITY)
        drawn: list[Genotype] = []
        while len(drawn) < 4 * self.settings.quadruples:
            base, one, other = (self.space.sample(rng) for _ in range(3))
            active = np.flatnonzero(self.space.active(base))
            i, j = rng.choice(active, 2, replace=False)
            rows = np.array([base] * 4)
            rows[[1, 3], i], rows[[2, 3], j] = one[i], other[j]
            four = [self.space.canonical(row.tolist()) for row in rows]
            if len(set(four)) == 4:
                drawn += four
        return drawn


def speed(space: SearchSpace, predictor: LatencyPredictor) -> float:
    """Return how many genotypes a second are predicted, given as an array."""
    sizes = (SPEED_GENOTYPES, len(space.genes))
    genotypes = np.random.default_rng(0).integers(0, space.cardinalities, sizes)
    predictor.predict(genotypes[:1000])
    start = time.perf_counter()
    predictor.predict(genotypes)
    return SPEED_GENOTYPES / (time.perf_counter() - start)


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
                fitted = latency_predictors.get(name, **settings).fit(
                    space, genotypes, pool[1][picked]
                )
                prediction = fitted.predict(held_out[0])
                covered = coverage_percent(prediction, held_out[1], COVERAGE)
                rows.append(
                    {"predictor": label, "samples": size, "draw": draw}
                    | scores(prediction.mean_ms, held_out[1])
                    | {"coverage_percent": covered}
                )
    return pd.DataFrame(rows)


def near_front(
    space: SearchSpace, predictor: LatencyPredictor, n: int, rng: np.random.Generator
) -> list[Genotype]:
    """Return networks with many MACs for their predicted latency: where a search ends up.

    Evolution by non-dominated sorting of predicted latency against MACs; where the predictor
    errs, a search moves to, so these are harder than random networks.
    """
    population = space.samples(POPULATION, rng)
    for _ in range(GENERATIONS):
        parents = population[_fronts(space, predictor, population)[: POPULATION // 4]]
        children = [space.mutate(parent, rng, genes=2) for parent in parents.tolist()]
        pairs = parents[rng.integers(len(parents), size=(len(parents), 2))].tolist()
        mixed = [space.crossover(mother, father, rng) for mother, father in pairs]
        population = np.unique(np.vstack([parents, children, mixed]), axis=0)
    best = population[_fronts(space, predictor, population)[: 4 * n]]
    by_latency = best[np.argsort(predictor.predict(best).mean_ms)]
    spread = by_latency[np.linspace(0, len(by_latency) - 1, n).round().astype(int)]
    return list(dict.fromkeys(tuple(row) for row in spread.tolist()))


def _fronts(space: SearchSpace, predictor: LatencyPredictor, genotypes: IntArray) -> IntArray:
    """Return the positions of genotypes, non-dominated ones first, front by front."""
    latency_ms = predictor.predict(genotypes).mean_ms
    macs = space.costs(genotypes)["macs_m"].to_numpy()
    left = np.lexsort([-macs, latency_ms])
    ordered: list[int] = []
    while len(left):
        most = np.maximum.accumulate(np.concatenate([[-np.inf], macs[left][:-1]]))
        front = macs[left] > most
        ordered.extend(left[front].tolist())
        left = left[~front]
    return np.array(ordered)
