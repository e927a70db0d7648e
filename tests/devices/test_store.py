"""Measurements that were taken once are found again, and what they cost is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

import nas.devices
from nas.core.measurement import Measurement
from nas.devices.store import MeasurementStore, Tally

MEASUREMENT = Measurement(
    samples_ms=(1.0, 1.5, 1.25),
    relative_ci=0.01,
    peak_memory_mb=None,
    protocol={"seed": 0},
    device={"name": "cpu"},
    environment={"load_before": 0.5},
)
CPU = nas.devices.get("cpu")


@pytest.fixture
def store(tmp_path: Path) -> MeasurementStore:
    store = MeasurementStore(tmp_path / "measurements")
    store.add(CPU, "net", 0.5, MEASUREMENT, took_s=3.0)
    return store


def test_what_was_added_is_found_by_another_process(store: MeasurementStore) -> None:
    again = MeasurementStore(store.folder)
    assert again.find(CPU, "net", 0.5) == MEASUREMENT
    assert again.tally == Tally(reused=1, reused_s=3.0)
    assert store.tally == Tally(taken=1, taken_s=3.0)


@pytest.mark.parametrize(
    ("device", "network", "seconds", "memory"),
    [
        (CPU, "other", 0.5, False),
        (CPU, "net", 0.6, False),
        (CPU, "net", None, False),
        (CPU, "net", 0.5, True),
        (nas.devices.get("cpu", threads=2), "net", 0.5, False),
        (nas.devices.get("cpu", warmup_seconds=0.2), "net", 0.5, False),
    ],
)
def test_another_network_device_or_setting_is_not_found(
    store: MeasurementStore, device: object, network: str, seconds: float | None, memory: bool
) -> None:
    assert store.find(device, network, seconds, memory=memory) is None  # type: ignore[arg-type]
    assert store.tally.reused == 0


def test_a_file_that_was_cut_off_is_as_none(store: MeasurementStore) -> None:
    [file] = (p for p in store.folder.glob("*/*.json") if p.name != "device.json")
    file.write_text(file.read_text()[:40])
    assert store.find(CPU, "net", 0.5) is None
