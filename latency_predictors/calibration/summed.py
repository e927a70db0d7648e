"""Predictors that sum over the parts of a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import search_spaces
from latency_predictors import PredictorSettings
from latency_predictors.calibration.parts import PartTable
from latency_predictors.calibration.process import PartProcess, roofline_error
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.prediction import FloatArray, LatencyPredictor, Prediction
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

SMALLEST = 0.1
"""Predictions are at least this share of the smallest latency that was measured."""

KEPT = ("latency_ms", "held_out", "hyperparameters")
"""What stays when more samples are learned from."""


class PartsPredictor(LatencyPredictor):
    """Sums the latencies of a network's parts, learned from measured networks.

    It is kept as its samples and hyperparameters, under which conditioning again takes a moment.

    Attributes:
        name: Of the predictor that was fitted.
        space: Of the networks.
        width: Channels of a block in the runtime's layout, as the samples tell.
        latency_ms: Measured latencies of the calibration, shape `(n,)`.
        held_out: The same predicted from the other samples, and how unsure, shape `(n, 2)`.
    """

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        table: PartTable,
        genotypes: Sequence[Genotype] | IntArray,
        latency_ms: FloatArray,
        *,
        shared: bool = True,
        like: PartsPredictor | None = None,
        known: Mapping[str, FloatArray] | None = None,
    ) -> None:
        """Fit the latencies of parts.

        Args:
            name: Under which the predictor is registered.
            space: Of the networks.
            table: Of the parts that the networks are made of.
            genotypes: Measured networks.
            latency_ms: Their latencies, shape `(n,)`.
            shared: Whether parts learn from similar ones.
            like: Whose hyperparameters and scores are kept; `None` to find them. Intervals stay
                scaled by the cross-validation of the calibration, whose samples were not chosen
                for being near a limit or a front.
            known: The same from a file.
        """
        self.name, self.space, self.width = name, space, table.width
        self._table, self._shared = table, shared
        self._genotypes = space.matrix(genotypes).copy()
        self._measured_ms = np.asarray(latency_ms, float)
        counts = table.counts(self._genotypes)
        # In an order that does not depend on what else was looked up before.
        measured = sorted(np.flatnonzero(counts.any(axis=0)), key=lambda i: repr(table.parts[i]))
        counts = counts[:, measured]
        process = PartProcess([table.parts[i] for i in measured], shared=shared)
        if like is not None:
            known = like.kept()
        if known is None:
            self._learned = process.fit(counts, self._measured_ms)
            self.hyperparameters = process.hyperparameters
            self.latency_ms = self._measured_ms
            self.held_out = process.cross_validate(counts, self._measured_ms)
        else:
            self.hyperparameters = known["hyperparameters"]
            self.latency_ms, self.held_out = known["latency_ms"], known["held_out"]
            self._learned = process.condition(self.hyperparameters, counts, self._measured_ms)
        self._columns = np.zeros((0, 5))

    def kept(self) -> dict[str, FloatArray]:
        """Return what stays when more samples are learned from."""
        return {name: getattr(self, name) for name in KEPT}

    def predict(self, genotypes: Sequence[Genotype] | IntArray) -> Prediction:
        """Look latencies up; see `LatencyPredictor.predict`."""
        networks = self._table.find(genotypes)
        if new := self._table.parts[len(self._columns) :]:
            self._columns = np.concatenate([self._columns, self._learned.columns_of(new)])
        sums = self._table.sums(networks, self._columns)
        mean_ms, std_ms = self._learned.networks(sums).T
        floor = SMALLEST * self.latency_ms.min()
        scores = np.abs(self.held_out[:, 0] - self.latency_ms) / self.held_out[:, 1]
        return Prediction(np.maximum(mean_ms, floor), std_ms, np.sort(scores))

    def held_out_errors(self) -> FloatArray:
        """Return relative errors by cross-validation; see `LatencyPredictor.held_out_errors`."""
        errors: FloatArray = self.held_out[:, 0] / self.latency_ms - 1
        return errors

    def save(self, path: Path) -> None:
        """Write `predictor.json` and `predictor.npz`; see `LatencyPredictor.save`."""
        path.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"genotypes": self._genotypes, "measured_ms": self._measured_ms}
        arrays |= self.kept()
        np.savez(path / "predictor.npz", **arrays)
        record = {
            "predictor": self.name,
            "space": search_spaces.registry.settings(self.space),
            "space_id": self.space.space_id,
            "width": self.width,
            "shared": self._shared,
            "compared": dict(self.compared),
        }
        write_json_atomically(path / "predictor.json", record)

    @classmethod
    def load(cls, path: Path, table_of: Callable[[SearchSpace, int], PartTable]) -> PartsPredictor:
        """Read what `save` wrote.

        Args:
            path: A folder.
            table_of: Returns the parts of a space, given the width of a block.

        Raises:
            ConfigError: The code of the space was another.
        """
        record = json.loads((path / "predictor.json").read_text("utf-8"))
        space = search_spaces.get(**record["space"])
        if record["space_id"] != space.space_id:
            expected = "a predictor of the space as its code is today"
            raise ConfigError("path", str(path), expected, "calibrate it again")
        with np.load(path / "predictor.npz", allow_pickle=False) as file:
            arrays = dict(file)
        samples = arrays.pop("genotypes"), arrays.pop("measured_ms")
        table = table_of(space, int(record["width"]))
        name, shared = record["predictor"], bool(record["shared"])
        loaded = cls(name, space, table, *samples, shared=shared, known=arrays)
        loaded.compared = record["compared"]
        return loaded


def best_table(
    tables: Sequence[PartTable], genotypes: Sequence[Genotype], latency_ms: FloatArray
) -> PartTable:
    """Return the table whose parts explain the samples best by their rooflines alone."""

    def error(table: PartTable) -> float:
        counts = table.counts(genotypes)
        return roofline_error(table.parts, counts, np.asarray(latency_ms, float))

    return min(tables, key=error) if len(tables) > 1 else tables[0]


@dataclass(frozen=True, kw_only=True)
class PartsSettings(PredictorSettings):
    """Settings of a predictor that sums over parts.

    Attributes:
        registered: Name under which it is registered.
        table: Returns the parts of a space, given the width of a block in the runtime's layout.
        widths: Of which the one is taken that explains the samples best.
        corrections: Whether parts of one kind learn from each other.
    """

    registered: ClassVar[str]
    table: ClassVar[Callable[[SearchSpace, int], PartTable]]
    widths: ClassVar[tuple[int, ...]] = (1,)

    corrections: bool = True

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Learn the parts' latencies; see `PredictorSettings.fit`."""
        tables = [type(self).table(space, width) for width in self.widths]
        table = best_table(tables, genotypes, latency_ms)
        shared = self.corrections
        return PartsPredictor(self.registered, space, table, genotypes, latency_ms, shared=shared)

    def refit(
        self,
        predictor: LatencyPredictor,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> LatencyPredictor:
        """Keep the hyperparameters; see `PredictorSettings.refit`."""
        assert isinstance(predictor, PartsPredictor)
        table = type(self).table(space, predictor.width)
        shared = self.corrections
        return PartsPredictor(
            self.registered, space, table, genotypes, latency_ms, shared=shared, like=predictor
        )

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`."""
        return PartsPredictor.load(path, cls.table)
