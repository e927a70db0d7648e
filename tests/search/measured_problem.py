"""The additive problem with a latency that a device knows and a predictor only estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from additive import Loss, problem

from nas.core.errors import DeviceError
from nas.core.measurement import Measurement
from nas.core.objective import Constraint, Facts
from nas.core.prediction import FloatArray, LatencyPredictor, LearningPredictor, Prediction
from nas.core.space import Genotype
from nas.objectives.builtin import LatencyMs
from nas.search.adaptive_measurement import (
    AdaptiveMeasurement,
    AdaptiveMeasurementSettings,
    MeasuredCandidate,
    TimedMeasurement,
)
from nas.search.problem import SearchProblem

STD = 0.05
"""Of a prediction, relative; in the intervals of 90 % it is taken 1.6 times."""


def true_ms(genotype: Genotype) -> float:
    """Return what the device takes: a share of every gene, and what no sum explains."""
    rng = np.random.default_rng([7, *genotype])
    return estimate_ms(genotype) * float(np.exp(STD * rng.standard_normal()))


def estimate_ms(genotype: Genotype) -> float:
    return 0.5 + sum(genotype) / len(genotype)


class Estimate(LatencyPredictor):
    """Knows the sum, and by heart what it was fitted to."""

    def __init__(self, known: dict[Genotype, float] | None = None) -> None:
        self.known = known or {}

    def predict(self, genotypes: Sequence[Genotype]) -> Prediction:  # type: ignore[override]
        rows = [tuple(int(gene) for gene in genotype) for genotype in genotypes]
        # Half way to what was measured, as a smooth model would go.
        mean = [(estimate_ms(g) + self.known.get(g, estimate_ms(g))) / 2 for g in rows]
        std = [STD * m / (10 if g in self.known else 1) for g, m in zip(rows, mean, strict=True)]
        scores = np.sort(np.abs(np.random.default_rng(1).standard_normal(199)))
        return Prediction(np.array(mean), np.array(std), scores)

    def held_out_errors(self) -> FloatArray:
        return np.zeros(1)

    def save(self, path: Path) -> None:
        raise AssertionError(f"a search saves no predictor, got {path}")


@dataclass
class Memory:
    """A record in memory; a copy of it is what a killed search has left."""

    rows: list[MeasuredCandidate] = field(default_factory=list)

    def add(self, candidate: MeasuredCandidate) -> None:
        self.rows.append(replace(candidate, seconds=0.0))


@dataclass
class FakeDevice:
    """Returns the true latency; remembers what it measured; fails at some calls."""

    fails_at: frozenset[int] = frozenset()
    measured: list[Genotype] = field(default_factory=list)

    def __call__(self, genotype: Genotype) -> TimedMeasurement:
        self.measured.append(genotype)
        if len(self.measured) - 1 in self.fails_at:
            raise DeviceError("board: gone")
        measurement = Measurement(
            samples_ms=(true_ms(genotype),) * 3,
            relative_ci=0.01,
            peak_memory_mb=None,
            protocol={},
            device={},
            environment={},
        )
        return TimedMeasurement(measurement=measurement, seconds=1.0, reused=False)


def latency_problem(
    *constraints: str, objectives: Sequence[str] = ("loss", "latency_ms")
) -> SearchProblem:
    """Return the problem of small loss at small latency."""
    known = {"loss": Loss(), "latency_ms": LatencyMs()}
    limits = tuple(Constraint.parse(text) for text in constraints)
    return replace(
        problem(),
        objectives={name: known[name] for name in objectives},
        constraints=limits,
        limited={c.objective: known[c.objective] for c in limits if c.objective not in objectives},
        facts=Facts(lambda genotypes: None, LearningPredictor(Estimate())),  # type: ignore[arg-type,return-value]
    )


def adaptive_measurement(
    at: SearchProblem, record: Memory, device: FakeDevice, measurements: int = 10
) -> AdaptiveMeasurement:
    """Return adaptive measurement whose predictor learns by heart."""
    predictor = at.facts.predictor
    assert isinstance(predictor, LearningPredictor)

    def learn(genotypes: Sequence[Genotype], latency_ms: FloatArray) -> LatencyPredictor:
        return Estimate(dict(zip(genotypes, latency_ms.tolist(), strict=True)))

    return AdaptiveMeasurement(
        problem=at,
        settings=AdaptiveMeasurementSettings(measurements=measurements),
        predictor=predictor,
        measure=device,
        learn=learn,
        recorded={row.arch_id: row for row in record.rows},
        record=record.add,
    )
