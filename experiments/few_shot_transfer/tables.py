"""The published latency tables, and which devices are old and which are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency_predictors.calibration.few_shot import Columns, Matrix
from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray
from nas.tables.nasbench201 import load_nasbench201
from search_spaces.nasbench201 import EDGES, NONE

FOLDER = Path(__file__).parent
PENALTY = 0.3
"""Of the additive fit to a reference device; it only has to keep the fit defined."""


@dataclass(frozen=True)
class Table:
    """Latencies of architectures on devices, with HELP's roles of the devices.

    Attributes:
        one_hot: Single choices, shape `(n, k)`.
        counts: How often each operation is chosen, shape `(n, operations)`.
        alive: Single choices that some output depends on, shape `(n, k)`.
        latency_ms: Shape `(n,)`, by device.
        references: Devices whose latencies are known.
        tests: Devices that are new.
        additive: Devices whose published latency is a sum of a table, not a measurement.
        known: The first so many rows are what HELP trains on; the next 1,000 are scored.
    """

    one_hot: FloatArray
    counts: FloatArray
    alive: FloatArray
    latency_ms: dict[str, FloatArray]
    references: tuple[str, ...]
    tests: tuple[str, ...]
    additive: tuple[str, ...]
    known: int

    def predicted(self, device: str) -> FloatArray:
        """Return what a predictor of a reference device says of all architectures, shape `(n,)`.

        An additive fit to the measurements of the first `known` rows, relative to their mean.
        """
        features = np.hstack([self.one_hot, self.alive])
        features -= features[: self.known].mean(axis=0)
        measured = self.latency_ms[device][: self.known]
        known = features[: self.known]
        gram = known.T @ known + PENALTY * np.eye(known.shape[1])
        weights = np.linalg.solve(gram, known.T @ (measured / measured.mean() - 1))
        fitted: FloatArray = measured.mean() * (1 + features @ weights)
        return fitted

    def columns(self, references: Sequence[str]) -> tuple[Columns, Matrix]:
        """Return the columns of all rows, scaled on the known ones."""
        devices_ms = np.stack([self.predicted(device) for device in references], 1)
        known = slice(self.known)
        columns = Columns.of(devices_ms[known], self.counts[known], self.one_hot[known])
        return columns, columns(devices_ms, self.counts, self.one_hot)


def nasbench201() -> Table:
    """Return the table of NAS-Bench-201; HELP, section 4.1."""
    table = load_nasbench201()
    operations = table["ops"].astype(int)
    encoded = _encode(operations)
    return Table(
        encoded.reshape(len(operations), -1),
        encoded.sum(axis=1),
        _encode(_alive(operations)).reshape(len(operations), -1),
        _by_device(table["lat_ms"], table["lat_devices"]),
        _references(256),
        ("titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss"),
        ("fpga", "eyeriss"),
        900,
    )


def fbnet() -> Table:
    """Return the table of the FBNet space."""
    with np.load(FOLDER / "fbnet.npz", allow_pickle=False) as table:
        encoded = _encode(table["ops"].astype(int))
        return Table(
            (one_hot := encoded.reshape(len(encoded), -1)),
            encoded.sum(axis=1),
            one_hot[:, :0],
            _by_device(table["lat_ms"], table["lat_devices"]),
            _references(64),
            ("fpga", "raspi4", "eyeriss"),
            ("fpga", "raspi4", "eyeriss", "pixel3"),
            4000,
        )


def ofa() -> Table:
    """Return the table of the once-for-all space."""
    with np.load(FOLDER / "ofa.npz", allow_pickle=False) as table:
        used = (np.arange(4) < table["d"][:, :, None]).reshape(len(table["d"]), -1)
        kinds = [
            _encode(np.where(used, np.searchsorted(v, table[k]) + 1, 0))
            for k, v in (("ks", (3, 5, 7)), ("e", (3, 4, 6)))
        ]
        resolutions = np.unique(table["r"])
        resolution = (table["r"][:, None] == resolutions).astype(float)
        one_hot = np.hstack([*(k[:, :, 1:].reshape(len(used), -1) for k in kinds), resolution])
        counts = np.hstack([*(k[:, :, 1:].sum(axis=1) for k in kinds), resolution])
        devices = [
            f"{name}_{batch}" for name in ("2080ti", "titan_xp", "v100") for batch in (1, 32, 64)
        ]
        return Table(
            one_hot,
            counts,
            one_hot[:, :0],
            _by_device(table["lat_ms"], table["lat_devices"]),
            tuple(devices),
            ("titan_rtx_1", "titan_rtx_32", "titan_rtx_64"),
            (),
            4000,
        )


def _references(largest_batch: int) -> tuple[str, ...]:
    gpus = (f"1080ti_{batch}" for batch in (1, 32, largest_batch))
    phones = ("samsung_a50", "pixel3", "essential_ph_1", "samsung_s7")
    return (*gpus, "silver_4114", "silver_4210r", *phones)


def _by_device(latency_ms: FloatArray, devices: Sequence[str]) -> dict[str, FloatArray]:
    return {str(name): latency_ms[:, i].astype(float) for i, name in enumerate(devices)}


def _encode(choices: IntArray) -> FloatArray:
    """Return one-hot choices, shape `(n, genes, operations)`."""
    encoded: FloatArray = (choices[:, :, None] == np.arange(choices.max() + 1)).astype(float)
    return encoded


def _alive(operations: IntArray) -> IntArray:
    """Return cells without the edges that lie on no path from the input to the output."""
    carries = operations != NONE
    reached = np.zeros((len(operations), 4), bool)
    read = np.zeros((len(operations), 4), bool)
    reached[:, 0] = read[:, 3] = True
    for i, (target, source) in enumerate(EDGES):
        reached[:, target] |= carries[:, i] & reached[:, source]
    for i, (target, source) in reversed(list(enumerate(EDGES))):
        read[:, source] |= carries[:, i] & read[:, target]
    used = [reached[:, source] & read[:, target] for target, source in EDGES]
    return np.where(np.stack(used, 1), operations, NONE)
