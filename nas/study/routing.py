"""The routing of a study: what was measured during its search, in `routing.json`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors import PredictorSettings
from latency_predictors.calibration import sampling
from nas.core.files import write_json_atomically
from nas.core.measurement import Device, Measurement
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace
from nas.search.routing import Routed, Taken


class RoutingFile:
    """The candidates that were sent to the device; a search that goes on recalls them."""

    def __init__(self, path: Path) -> None:
        """Read the file `path`, if it exists."""
        self._path = path
        rows = json.loads(path.read_text("utf-8"))["routed"] if path.is_file() else []
        self._routed = {row["arch_id"]: _read(row) for row in rows}

    def find(self, arch_id: str) -> Routed | None:
        """Return what was recorded of an architecture; see `RoutingRecord`."""
        return self._routed.get(arch_id)

    def add(self, routed: Routed) -> None:
        """Record one candidate durably; see `RoutingRecord`."""
        self._routed[routed.arch_id] = routed
        write_json_atomically(self._path, {"routed": [_row(each) for each in self.all()]})

    def all(self) -> Sequence[Routed]:
        """Return everything, in the order in which it was decided."""
        return list(self._routed.values())

    def summary(self) -> dict[str, Any]:
        """Return how many were routed and why, what it cost, and how far predictions were off."""
        every = self.all()
        taken = [(routed, routed.taken) for routed in every if routed.taken is not None]
        measured_ms = np.array([t.measurement.latency_ms for _, t in taken])
        errors = np.array([routed.predicted_ms for routed, _ in taken]) / measured_ms - 1
        updated = np.array([routed.updated_ms for routed, _ in taken], float) / measured_ms - 1
        covered = [r.low_ms <= t.measurement.latency_ms <= r.high_ms for r, t in taken]
        return {
            "routed": len(every),
            "by_reason": {
                reason: sum(routed.reason == reason for routed in every)
                for reason in ("constraint", "front")
            },
            "not_trained": sum(r.reason == "constraint" and not r.kept for r in every),
            "failed": len(every) - len(taken),
            "seconds": sum(routed.seconds for routed in every),
            "seconds_reused": sum(t.seconds for _, t in taken if t.reused),
            "prediction_error_percent": _spread(100 * np.abs(errors)),
            "prediction_error_percent_after_learning": _spread(100 * np.abs(updated)),
            "within_interval_percent": 100 * float(np.mean(covered)) if covered else None,
        }


def measurer(
    space: SearchSpace,
    device: Device,
    settings: PredictorSettings,
    store: MeasurementStore,
    seed: int,
) -> Callable[[Genotype], Taken]:
    """Return a function that measures a network as a calibration does, unless the store has it."""

    def measure(genotype: Genotype) -> Taken:
        started, reused, reused_s = time.monotonic(), store.tally.reused, store.tally.reused_s
        [measurement] = sampling.measure_genotypes(
            space,
            device,
            [genotype],
            seconds=settings.seconds_per_sample,
            seed=seed,
            store=store,
        )
        if store.tally.reused > reused:
            took_s = store.tally.reused_s - reused_s
            return Taken(measurement=measurement, seconds=took_s, reused=True)
        took_s = time.monotonic() - started
        return Taken(measurement=measurement, seconds=took_s, reused=False)

    return measure


def line(routed: Routed) -> str:
    """Return what became of a candidate, for people."""
    what = {"constraint": "a limit", "front": "the front"}[routed.reason]
    interval = f"predicted {routed.low_ms:.3g} to {routed.high_ms:.3g} ms, which straddles {what}"
    if routed.taken is None:
        return f"  {routed.arch_id} {interval}; not measured, so it counts: {routed.failure}"
    measurement = routed.taken.measurement
    ci_ms = measurement.relative_ci * measurement.latency_ms
    outcome = "" if routed.kept else "; breaks the limit"
    if not routed.kept and routed.reason == "constraint":
        outcome += ", so it is not trained"
    measured = f"measured {measurement.latency_ms:.4g} ± {ci_ms:.1g} ms"
    return f"  {routed.arch_id} {interval}; {measured}{outcome}"


def _spread(percent: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float] | None:
    if not len(percent):
        return None
    return {"median": float(np.median(percent)), "largest": float(np.max(percent))}


def _row(routed: Routed) -> dict[str, Any]:
    row: dict[str, Any] = dataclasses.asdict(routed)
    row["columns"] = {}
    if routed.taken is not None:
        measurement = routed.taken.measurement
        row["taken"]["measurement"] = measurement.to_dict()
        row["columns"] = {
            "latency_ms_predicted": routed.updated_ms,
            "latency_ms_predicted_std": routed.updated_std_ms,
            "latency_ms_measured": measurement.latency_ms,
            "latency_ms_measured_ci": measurement.relative_ci * measurement.latency_ms,
        }
    return row


def _read(row: dict[str, Any]) -> Routed:
    fields = {field.name: row[field.name] for field in dataclasses.fields(Routed)}
    if (taken := fields["taken"]) is not None:
        measurement = Measurement.from_dict(taken["measurement"])
        fields["taken"] = Taken(**{**taken, "measurement": measurement})
    # JSON has no infinities: an interval of few samples has no ends.
    if fields["high_ms"] is None:
        fields["high_ms"] = float("inf")
    return Routed(**{**fields, "genotype": tuple(fields["genotype"])})
