"""What a study measured during its search, in `adaptive_measurement.json`."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.files import write_json_atomically
from nas.core.measurement import Measurement
from nas.core.prediction import FloatArray
from nas.search.adaptive_measurement import MeasuredCandidate, TimedMeasurement


class MeasuredCandidatesFile:
    """The candidates that were sent to the device; a search that goes on recalls them."""

    def __init__(self, path: Path) -> None:
        """Read the file `path`, if it exists."""
        self._path = path
        rows = json.loads(path.read_text("utf-8"))["measured"] if path.is_file() else []
        self._measured = {row["arch_id"]: _candidate_of_row(row) for row in rows}

    def find(self, arch_id: str) -> MeasuredCandidate | None:
        """Return what was recorded of an architecture; see `MeasuredCandidateRecord`."""
        return self._measured.get(arch_id)

    def add(self, candidate: MeasuredCandidate) -> None:
        """Record one candidate durably; see `MeasuredCandidateRecord`."""
        self._measured[candidate.arch_id] = candidate
        rows = [_row_of_candidate(each) for each in self._measured.values()]
        write_json_atomically(self._path, {"measured": rows})

    def summary(self) -> dict[str, Any]:
        """Return how many were measured and why, what it cost, and how far predictions were off."""
        every = list(self._measured.values())
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


def adaptive_measurement_line(candidate: MeasuredCandidate) -> str:
    """Return what became of a candidate, for people."""
    what = {"constraint": "a limit", "front": "the front"}[candidate.reason]
    interval = (
        f"predicted {candidate.low_ms:.3g} to {candidate.high_ms:.3g} ms, which straddles {what}"
    )
    if candidate.taken is None:
        return f"  {candidate.arch_id} {interval}; not measured, so it counts: {candidate.failure}"
    measurement = candidate.taken.measurement
    ci_ms = measurement.relative_ci * measurement.latency_ms
    outcome = "" if candidate.kept else "; breaks the limit"
    if not candidate.kept and candidate.reason == "constraint":
        outcome += ", so it is not trained"
    measured = f"measured {measurement.latency_ms:.4g} ± {ci_ms:.1g} ms"
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
            "latency_ms_measured": measurement.latency_ms,
            "latency_ms_measured_ci": measurement.relative_ci * measurement.latency_ms,
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
