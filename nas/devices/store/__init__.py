"""Measurements that were taken once and are not taken again.

One folder a device, one JSON file a network. A device is the same if its settings, its hardware
and its runtime's version are; a network is the same if its architecture is. Nothing else is in the
names, so that a folder can be moved, or kept with a project's files.

Files appear whole or not at all: a process that dies loses the measurement that it was taking, and
several processes may use one folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.files import json_values, write_json_atomically
from nas.core.measurement import Device, Measurement


@dataclass(frozen=True)
class MeasurementStore:
    """A folder of measurements.

    Attributes:
        folder: Made when the first measurement comes.
    """

    folder: Path

    def find(
        self, device: Device, network: str, seconds: float | None, *, memory: bool = False
    ) -> Measurement | None:
        """Return the measurement of a network on a device, or `None`.

        Args:
            device: With its settings.
            network: What tells the network from others, such as an `arch_id`.
            seconds: Most seconds of timed inference that were asked for.
            memory: Whether peak memory must be known as well.
        """
        path = self._path(device, network, seconds)
        try:
            measurement = Measurement.from_dict(json.loads(path.read_text("utf-8")))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # never taken, or cut off by a crash of the machine
        return None if memory and measurement.peak_memory_mb is None else measurement

    def add(
        self, device: Device, network: str, seconds: float | None, measurement: Measurement
    ) -> None:
        """Keep a measurement, all samples included."""
        path = self._path(device, network, seconds)
        path.parent.mkdir(parents=True, exist_ok=True)
        description = path.parent / "device.json"
        if not description.is_file():
            write_json_atomically(description, device.identity())
        write_json_atomically(path, measurement.to_dict())

    def _path(self, device: Device, network: str, seconds: float | None) -> Path:
        name = _digest({"network": network, "seconds": seconds})
        return self.folder / _digest(device.identity()) / f"{name}.json"


def _digest(record: dict[str, Any]) -> str:
    text = json.dumps(json_values(record), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
