"""Adaptive measurement: where a prediction leaves a decision open, the device is asked.

A candidate is measured before it is trained where its predicted interval straddles a limit on
latency, and after it was trained where it would be on the front at the low end of the interval and
not at the high end. Every decision is taken when a candidate is asked for or its trial is told, and
is recorded, so that replaying a search takes the same ones again without measuring anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.core.errors import ConfigError, DeviceError, ExportError
from nas.core.measurement import Measurement
from nas.core.prediction import FloatArray, LatencyPredictor, LearningPredictor
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.problem import SearchProblem
from nas.search.ranking import constrained_ranks


@dataclass(frozen=True, kw_only=True)
class AdaptiveMeasurementSettings:
    """When candidates are measured in a search.

    Attributes:
        measurements: Most candidates that a search measures; 0 for none.
        coverage: Share of networks that the intervals cover by which it is decided.
    """

    measurements: int = 8
    coverage: float = 0.9

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.measurements < 0:
            raise ConfigError(
                "search.adaptive_measurement.measurements", self.measurements, "0 or more"
            )
        if not 0 < self.coverage < 1:
            raise ConfigError(
                "search.adaptive_measurement.coverage", self.coverage, "between 0 and 1"
            )


@dataclass(frozen=True, kw_only=True)
class TimedMeasurement:
    """A measurement and what it cost.

    Attributes:
        measurement: The measurement.
        seconds: That it took, when it was taken.
        reused: Whether it was taken before.
    """

    measurement: Measurement
    seconds: float
    reused: bool


@dataclass(frozen=True, kw_only=True)
class MeasuredCandidate:
    """One candidate that was sent to the device.

    Attributes:
        number: The candidate's number.
        genotype: Canonical genotype.
        arch_id: Identity of the architecture.
        reason: `constraint` or `front`.
        predicted_ms: What was predicted before.
        low_ms: Lower end of the predicted interval.
        high_ms: Its upper end.
        taken: What was measured, unless the device failed.
        updated_ms: What is predicted since the predictor has learned from it.
        updated_std_ms: How unsure that is.
        kept: Whether it keeps the limits; a candidate that does not is not trained.
        seconds: That the whole step took.
        failure: Why it was not measured, else `None`.
    """

    number: int
    genotype: Genotype
    arch_id: str
    reason: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    taken: TimedMeasurement | None = None
    updated_ms: float | None = None
    updated_std_ms: float | None = None
    kept: bool = True
    seconds: float = 0.0
    failure: str | None = None


@dataclass
class AdaptiveMeasurement:
    """Decides which candidates are measured.

    Attributes:
        problem: What is searched for; its predictor is `predictor`.
        settings: When candidates are measured.
        predictor: Learns from what is measured.
        measure: Measures a network; raises `DeviceError` or `ExportError`.
        learn: Fits a predictor to the calibration's samples and to these genotypes and latencies.
        recorded: What an earlier run of the same search measured, by `arch_id`.
        record: Called with every candidate that is sent to the device now; records it durably.
    """

    problem: SearchProblem
    settings: AdaptiveMeasurementSettings
    predictor: LearningPredictor
    measure: Callable[[Genotype], TimedMeasurement]
    learn: Callable[[Sequence[Genotype], FloatArray], LatencyPredictor]
    recorded: Mapping[str, MeasuredCandidate]
    record: Callable[[MeasuredCandidate], None]

    def __post_init__(self) -> None:
        """Begin with a predictor that has learned nothing yet."""
        every = {**self.problem.limited, **self.problem.objectives}
        self._columns = {n: o.measured_column for n, o in every.items() if o.measured_column}
        self._limits = [c for c in self.problem.constraints if c.objective in self._columns]
        self._left = self.settings.measurements
        self._measured: dict[str, MeasuredCandidate] = {}
        self._genotypes: list[Genotype] = []
        self._latency_ms: list[float] = []

    def admit(self, number: int, genotype: Genotype, arch_id: str) -> bool:
        """Return whether a proposed candidate is to be trained; may measure it.

        One that is predicted to be near a limit is measured, and is not trained if it breaks it.
        """
        if not self._limits or not self._left:
            return True
        candidate = self._predicted(number, genotype, arch_id, "constraint")
        low_ms, high_ms = candidate.low_ms, candidate.high_ms
        if any(limit.met(low_ms) != limit.met(high_ms) for limit in self._limits):
            return self._measure(candidate).kept
        return True

    def judge(self, trial: Trial, earlier: Sequence[Trial]) -> Trial:
        """Return a trial that has ended with what is known of its latency now; may measure it.

        Args:
            trial: In the order of telling.
            earlier: All trials that were told before, as this returned them.
        """
        objectives = self._columns.keys() & self.problem.objectives.keys()
        settled = trial.arch_id in self._measured or not objectives or not self._left
        # Of a partial training it is not known where it will stand in the end.
        if settled or not trial.full or not self.problem.kept(trial):
            return trial
        candidate = self._predicted(trial.number, trial.genotype, trial.arch_id, "front")
        others = [other for other in earlier if other.full and self.problem.kept(other)]
        on_front = [
            self._on_front({**trial.values, **dict.fromkeys(objectives, end)}, others)
            for end in (candidate.low_ms, candidate.high_ms)
        ]
        if on_front != [True, False]:
            return trial
        candidate = self._measure(candidate)
        if candidate.updated_ms is None:
            return trial
        values = {**trial.values, **dict.fromkeys(objectives, candidate.updated_ms)}
        return replace(trial, values=values, facts={**trial.facts, **self.facts(trial.arch_id)})

    def facts(self, arch_id: str) -> dict[str, float]:
        """Return the columns of what was measured of an architecture; empty if nothing was."""
        candidate = self._measured.get(arch_id)
        if candidate is None or candidate.taken is None:
            return {}
        measurement = candidate.taken.measurement
        found = {}
        for column in self._columns.values():
            found[column] = measurement.latency_ms
            if not measurement.estimated_by:
                found[f"{column}_ci"] = measurement.relative_ci * measurement.latency_ms
        return found

    def _predicted(
        self, number: int, genotype: Genotype, arch_id: str, reason: str
    ) -> MeasuredCandidate:
        """Return a candidate that has not been measured yet, with what is predicted of it."""
        prediction = self.predictor.predict([genotype])
        low_ms, high_ms = prediction.interval_ms(self.settings.coverage)
        return MeasuredCandidate(
            number=number,
            genotype=genotype,
            arch_id=arch_id,
            reason=reason,
            predicted_ms=float(prediction.mean_ms[0]),
            low_ms=float(low_ms[0]),
            high_ms=float(high_ms[0]),
        )

    def _on_front(self, values: Mapping[str, float], others: Sequence[Trial]) -> bool:
        names = list(self.problem.objectives)
        own = np.array([values[name] for name in names])
        points = np.array([[o.values[name] for name in names] for o in others])
        points = points.reshape(len(others), len(names))
        return bool(constrained_ranks(np.vstack([own, points]), np.zeros(1 + len(points)))[0] == 0)

    def _measure(self, candidate: MeasuredCandidate) -> MeasuredCandidate:
        """Measure a candidate, or recall what was measured in an earlier run."""
        self._left -= 1
        recalled = self.recorded.get(candidate.arch_id)
        candidate = recalled or candidate
        started = time.monotonic()
        if recalled is None:
            try:
                candidate = replace(candidate, taken=self.measure(candidate.genotype))
            except (DeviceError, ExportError) as error:
                candidate = replace(candidate, failure=str(error))
        if candidate.taken is not None:
            candidate = self._learned(candidate, candidate.taken.measurement.latency_ms)
        if recalled is None:
            candidate = replace(candidate, seconds=time.monotonic() - started)
            self.record(candidate)
        self._measured[candidate.arch_id] = candidate
        return candidate

    def _learned(self, candidate: MeasuredCandidate, latency_ms: float) -> MeasuredCandidate:
        self._genotypes.append(candidate.genotype)
        self._latency_ms.append(latency_ms)
        self.predictor.current = self.learn(self._genotypes, np.array(self._latency_ms))
        prediction = self.predictor.predict([candidate.genotype])
        return replace(
            candidate,
            updated_ms=float(prediction.mean_ms[0]),
            updated_std_ms=float(prediction.std_ms[0]),
            kept=all(limit.met(latency_ms) for limit in self._limits),
        )
