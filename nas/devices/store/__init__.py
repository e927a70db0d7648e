"""Measurements that were taken once and are not taken again.

One folder a device, one JSON file a network. A device is the same if its settings, its hardware
and its runtime's version are; a network is the same if its architecture is. Nothing else is in the
names, so that a folder can be moved, or kept with a project's files.

Files appear whole or not at all: a process that dies loses the measurement that it was taking, and
several processes may use one folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from nas.core.files import hashed, write_json_atomically
from nas.core.measurement import Device, Measurement


@dataclass
class StoreCounts:
    """What came into a store and out of it, and what that cost.

    Attributes:
        taken: Measurements that were added.
        taken_s: Seconds that they took, export included.
        reused: Measurements that were found.
        reused_s: Seconds that they took when they were taken.
    """

    taken: int = 0
    taken_s: float = 0.0
    reused: int = 0
    reused_s: float = 0.0


@dataclass(frozen=True)
class MeasurementStore:
    """A folder of measurements.

    Attributes:
        folder: Made when the first measurement comes.
        counts: Of what this object has added and found.
    """

    folder: Path
    counts: StoreCounts = field(default_factory=StoreCounts, compare=False)

    def find(
        self, device: Device, network: str, seconds: float | None, *, memory: bool = False
    ) -> Measurement | None:
        """Return the measurement of a network on a device, or `None`.

        Args:
            device: Equal settings, hardware and runtime are one device.
            network: What tells the network from others, such as an `arch_id`.
            seconds: Most seconds of timed inference that were asked for.
            memory: Whether peak memory must be known as well.
        """
        path = self._path(device, network, seconds)
        try:
            record = json.loads(path.read_text("utf-8"))
            measurement, took_s = Measurement.from_dict(record), float(record.get("took_s", 0))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # never taken, or cut off by a crash of the machine
        if memory and measurement.peak_memory_mb is None:
            return None
        self.counts.reused += 1
        self.counts.reused_s += took_s
        return measurement

    def add(
        self,
        device: Device,
        network: str,
        seconds: float | None,
        measurement: Measurement,
        took_s: float = 0.0,
    ) -> None:
        """Keep a measurement, all samples included, for which `find` is asked later.

        It took `took_s` seconds from the genotype to the result.
        """
        path = self._path(device, network, seconds)
        path.parent.mkdir(parents=True, exist_ok=True)
        description = path.parent / "device.json"
        if not description.is_file():
            write_json_atomically(description, device.identity())
        write_json_atomically(path, {**measurement.to_dict(), "took_s": took_s})
        self.counts.taken += 1
        self.counts.taken_s += took_s

    def _path(self, device: Device, network: str, seconds: float | None) -> Path:
        name = hashed({"network": network, "seconds": seconds}, 16)
        return self.folder / hashed(device.identity(), 16) / f"{name}.json"
