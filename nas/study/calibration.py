"""What a study measures to know latencies: samples before the search, candidates during it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import latency_predictors
from latency_predictors.calibration import sampling
from latency_predictors.calibration.accuracy import scores
from latency_predictors.calibration.footprint import Flash, Sram
from latency_predictors.calibration.memory import PeakMemory, measured_memory
from nas.core.errors import DeviceError
from nas.core.files import write_json_atomically
from nas.core.measurement import Measurement
from nas.core.prediction import (
    FloatArray,
    LatencyPredictor,
    LearningPredictor,
    MemoryPredictor,
)
from nas.core.records import decoding, read_json
from nas.core.seeding import stream
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace
from nas.results.columns import MEASURED
from nas.search.adaptive_measurement import (
    AdaptiveMeasurement,
    AdaptiveMeasurementSettings,
    MeasuredCandidate,
    TimedMeasurement,
)
from nas.search.problem import SearchProblem
from nas.study.settings import CalibrationSettings

MEMORY, SRAM, FLASH = "memory", "sram", "flash"
"""Folders of the predictors of memories, in that of the latency predictor."""

REPEATED = 20
"""Networks of a calibration that are measured a second time."""


@dataclass(frozen=True)
class Calibration:
    """What lies in the folder of a calibrated predictor.

    Attributes:
        predictor: The latency predictor, or `None` of a device that tells no time.
        memory: The predictor of peak memory, or `None` where memory was not asked for.
        sram: The predictor of a microcontroller's memory, or `None` of other devices.
        flash: That of its flash.
        cost: Networks `measured` and `reused` from the store, `seconds` of the whole and
            `seconds_reused`, which the reused ones took when they were measured;
            `relative_ci_percent`, the median half width of a measurement's 95 % interval.
    """

    predictor: LatencyPredictor | None
    memory: MemoryPredictor | None
    sram: MemoryPredictor | None
    flash: MemoryPredictor | None
    cost: dict[str, Any]

    @property
    def sample_s(self) -> float:
        """Seconds that one network took, when it was measured."""
        seconds = self.cost["seconds"] + self.cost["seconds_reused"]
        return float(seconds / (self.cost["measured"] + self.cost["reused"]))

    @classmethod
    def load(cls, folder: Path, space: SearchSpace) -> Calibration | None:
        """Read what `measured` has left; `None` unless it came to its end.

        Raises:
            ConfigError: It was calibrated for another space, or for other code of the same.
        """
        timed, estimated = (folder / "predictor.json").is_file(), (folder / FLASH).is_dir()
        if not (folder / "calibration.json").is_file() or not (timed or estimated):
            return None
        cost = sampling.load_samples(folder, space)[2]
        return cls(
            predictor=latency_predictors.load(folder) if timed else None,
            memory=PeakMemory.load(folder / MEMORY) if (folder / MEMORY).is_dir() else None,
            sram=Sram.load(folder / SRAM) if estimated else None,
            flash=Flash.load(folder / FLASH) if estimated else None,
            cost=cost,
        )

    @classmethod
    def measured(
        cls, settings: CalibrationSettings, on_progress: Callable[[int, str], None] | None = None
    ) -> Calibration:
        """Measure some networks, unless the store has them, and fit a predictor to them.

        Progress is told as `latency_predictors.calibration.sampling.measure_genotypes` tells it.

        Raises:
            DeviceError: The device cannot tell how much memory networks take.
        """
        space, store = settings.space, settings.store
        started = time.monotonic()
        before = dataclasses.replace(store.counts)
        choice = int(stream(settings.seed, "calibration").integers(2**31))
        genotypes, measurements = sampling.measure_samples(
            space,
            settings.device,
            settings.predictor,
            choice,
            store,
            memory=settings.memory,
            limit_s=settings.limit_s,
            on_progress=on_progress,
        )
        memory, sram, flash, predictor = None, None, None, None
        if settings.device.estimated:
            sram_mb, tail_mb, flash_mb = (
                np.array([getattr(m, name) for m in measurements], float)
                for name in ("peak_memory_mb", "loading_memory_mb", "flash_mb")
            )
            sram = Sram.fit(space, genotypes, sram_mb, tail_mb)
            flash = Flash.fit(space, genotypes, flash_mb)
        elif settings.memory:
            if not measured_memory(measurements):
                raise DeviceError(
                    "objective peak_memory_mb: the device cannot tell how much memory a network "
                    "takes; use counted_memory_mb"
                )
            memory = PeakMemory.fit(space, genotypes, measurements)
        if settings.device.times:
            latency_ms = np.array([m.latency_ms for m in measurements])
            predictor = settings.predictor.fit(space, genotypes, latency_ms)
        cost = {
            "measured": store.counts.taken - before.taken,
            "reused": store.counts.reused - before.reused,
            "seconds": time.monotonic() - started,
            "seconds_reused": store.counts.reused_s - before.reused_s,
            "relative_ci_percent": float(100 * np.median([m.relative_ci for m in measurements])),
        }
        parts = {MEMORY: memory, SRAM: sram, FLASH: flash, "": predictor}
        for name, part in parts.items():
            if part is not None:
                part.save(settings.folder / name)
        # Last, as it tells that all are there.
        sampling.save_samples(settings.folder, space, genotypes, measurements, cost)
        return cls(predictor=predictor, memory=memory, sram=sram, flash=flash, cost=cost)


def accuracy_line(calibration: Calibration) -> str:
    """Return how well samples are predicted from the others, beside the noise of measuring."""
    parts = {
        "latency": calibration.predictor,
        "peak memory": calibration.memory,
        "SRAM": calibration.sram,
        "flash": calibration.flash,
    }
    found = []
    for name, predictor in parts.items():
        if predictor is not None:
            errors = 100 * np.abs(predictor.held_out_errors())
            error, worst = np.percentile(errors, [50, 90])
            found.append(f"its {name} within {error:.1f} % (median) and {worst:.1f} % (90 %)")
    line = f"a sample is predicted from the others, {', '.join(found)}"
    if noise := calibration.cost["relative_ci_percent"]:
        return f"{line}; a measurement's 95 % interval is ±{noise:.1f} %"
    return line


def held_out_accuracy(
    settings: CalibrationSettings,
    predictor: LatencyPredictor,
    on_progress: Callable[[int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Score held-out predictions, and a second measurement of up to `REPEATED` of the networks.

    No predictor can be expected to score better than a second measurement does: that is the noise
    ceiling of the device. The second measurements are kept in the folder `again` of the store.

    Returns:
        One row for the predictions of each sample from the others, and one for the second
        measurement: `latency` (what is scored), `networks` and the `scores`.
    """
    genotypes, latency_ms, _ = sampling.load_samples(settings.folder, settings.space)
    predicted_ms = latency_ms * (1 + predictor.held_out_errors())
    count = min(REPEATED, len(genotypes))
    chosen = np.linspace(0, len(genotypes) - 1, count).round().astype(int)
    again = sampling.measure_genotypes(
        settings.space,
        settings.device,
        [genotypes[i] for i in chosen],
        seconds=settings.predictor.seconds_per_sample,
        seed=settings.seed,
        store=MeasurementStore(settings.store.folder / "again"),
        on_progress=on_progress,
    )
    again_ms = np.array([m.latency_ms for m in again])
    predicted = {"latency": "predicted from the other samples", "networks": len(genotypes)}
    repeated = {"latency": "measured a second time", "networks": count}
    return [
        predicted | scores(predicted_ms, latency_ms),
        repeated | scores(again_ms, latency_ms[chosen]),
    ]


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


class MeasuredCandidatesFile:
    """The candidates that a search sent to the device; one that goes on recalls them.

    Attributes:
        measured: By `arch_id`, in the order in which it was decided.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        rows = read_json(path, {"measured": list})["measured"] if path.is_file() else []
        with decoding(path):
            self.measured = {row["arch_id"]: _candidate_of_row(row) for row in rows}

    def add(self, candidate: MeasuredCandidate) -> None:
        """Record one candidate durably."""
        self.measured[candidate.arch_id] = candidate
        rows = [_row_of_candidate(each) for each in self.measured.values()]
        write_json_atomically(self._path, {"measured": rows})

    def summary(self) -> dict[str, Any]:
        """Return how many were measured and why, what it cost, and how far predictions were off."""
        every = list(self.measured.values())
        reasons = Counter(candidate.reason for candidate in every)
        taken = [(candidate, candidate.taken) for candidate in every if candidate.taken is not None]
        measured_ms = np.array([t.measurement.latency_ms for _, t in taken])
        low_ms, high_ms, predicted_ms, updated_ms = (
            np.array([getattr(candidate, name) for candidate, _ in taken], float)
            for name in ("low_ms", "high_ms", "predicted_ms", "updated_ms")
        )
        covered = (low_ms <= measured_ms) & (measured_ms <= high_ms)
        return {
            "measured": len(every),
            "by_reason": {reason: reasons[reason] for reason in ("constraint", "front")},
            "not_trained": sum(each.reason == "constraint" and not each.kept for each in every),
            "failed": len(every) - len(taken),
            "seconds": sum(candidate.seconds for candidate in every),
            "seconds_reused": sum(t.seconds for _, t in taken if t.reused),
            "prediction_error_percent": _errors_percent(predicted_ms, measured_ms),
            "prediction_error_percent_after_learning": _errors_percent(updated_ms, measured_ms),
            "within_interval_percent": 100 * float(np.mean(covered)) if taken else None,
        }


def adaptive_measurement(
    settings: AdaptiveMeasurementSettings,
    calibration: CalibrationSettings,
    problem: SearchProblem,
    measured: MeasuredCandidatesFile,
    say: Callable[[str], None],
) -> AdaptiveMeasurement | None:
    """Return what measures candidates during a search, if anything does.

    Args:
        settings: When candidates are measured.
        calibration: How they are measured.
        problem: What is searched for.
        measured: Recalls and records what was measured.
        say: Called with a line for people about each.
    """
    predictor = problem.facts.predictor
    if not settings.measurements or predictor is None:
        return None
    assert isinstance(predictor, LearningPredictor)

    def note(candidate: MeasuredCandidate) -> None:
        measured.add(candidate)
        say(adaptive_measurement_line(candidate))

    return AdaptiveMeasurement(
        problem=problem,
        settings=settings,
        predictor=predictor,
        measure=measurer(calibration),
        learn=learner(calibration),
        recorded=measured.measured,
        record=note,
    )


def adaptive_measurement_line(candidate: MeasuredCandidate) -> str:
    """Return what became of a candidate, for people."""
    what = {"constraint": "a limit", "front": "the front"}[candidate.reason]
    if math.isfinite(candidate.high_ms):
        ends = f"{candidate.low_ms:.3g} to {candidate.high_ms:.3g} ms"
        interval = f"predicted {ends}, which straddles {what}"
    else:  # of few samples an interval has no end
        predicted = f"predicted {candidate.predicted_ms:.3g} ms"
        interval = f"{predicted} without an upper bound, which leaves {what} open"
    if candidate.taken is None:
        return f"  {candidate.arch_id} {interval}; not measured, so it counts: {candidate.failure}"
    measurement = candidate.taken.measurement
    outcome = "" if candidate.kept else "; breaks the limit"
    if not candidate.kept and candidate.reason == "constraint":
        outcome += ", so it is not trained"
    measured = f"measured {measurement.latency_ms:.4g} ± {measurement.ci_ms:.1g} ms"
    if measurement.estimated_by:
        measured = f"estimated {measurement.latency_ms:.4g} ms"
    elif not candidate.taken.reused:
        took = f"{candidate.taken.seconds:.0f} s"
        measured += f" in {took}, in which trainings on that machine waited"
    return f"  {candidate.arch_id} {interval}; {measured}{outcome}"


def _errors_percent(predicted_ms: FloatArray, measured_ms: FloatArray) -> dict[str, float] | None:
    if not len(measured_ms):
        return None
    percent = 100 * np.abs(predicted_ms / measured_ms - 1)
    return {"median": float(np.median(percent)), "largest": float(np.max(percent))}


def _row_of_candidate(candidate: MeasuredCandidate) -> dict[str, Any]:
    row: dict[str, Any] = dataclasses.asdict(candidate)
    row["columns"] = {}
    if candidate.taken is not None:
        measurement = candidate.taken.measurement
        row["taken"]["measurement"] = measurement.to_dict()
        row["columns"] = {
            "latency_ms_predicted": candidate.updated_ms,
            "latency_ms_predicted_std": candidate.updated_std_ms,
            **{name: value for name, value in measurement.columns.items() if name in MEASURED},
        }
    return row


def _candidate_of_row(row: dict[str, Any]) -> MeasuredCandidate:
    fields = {field.name: row[field.name] for field in dataclasses.fields(MeasuredCandidate)}
    if (taken := fields["taken"]) is not None:
        measurement = Measurement.from_dict(taken["measurement"])
        fields["taken"] = TimedMeasurement(**{**taken, "measurement": measurement})
    # JSON has no infinities: an interval of few samples has no ends.
    if fields["high_ms"] is None:
        fields["high_ms"] = float("inf")
    return MeasuredCandidate(**{**fields, "genotype": tuple(fields["genotype"])})
