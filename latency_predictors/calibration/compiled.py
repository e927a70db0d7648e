"""A fitted predictor in the form in which it is used: tables over the genes of a space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import search_spaces
from latency_predictors.calibration.deviation import NetworkDeviation
from latency_predictors.calibration.parts import Parts
from latency_predictors.calibration.process import PartProcess, of_networks
from latency_predictors.calibration.tables import GeneTables
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.prediction import FloatArray, LatencyPredictor, Prediction
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

SMALLEST = 0.1
"""Predictions are at least this share of the smallest latency that was measured."""


SAMPLES = ("latency_ms", "held_out", "hyperparameters")
"""Attributes that are saved beside the tables."""


@dataclass(frozen=True)
class CompiledPredictor(LatencyPredictor):
    """Looks latencies up.

    Attributes:
        name: Of the predictor that was fitted.
        space: Of the networks.
        width: Channels of a block in the runtime's layout, as the samples tell.
        tables: Sums over the genes; see `Learned.columns`.
        deviation: Of whole networks from the sum of their parts.
        latency_ms: Measured latencies of the calibration, shape `(n,)`.
        held_out: The same predicted from the other samples, and how unsure, shape `(n, 2)`.
        hyperparameters: Of the fit; see `PartProcess.hyperparameters`.
    """

    name: str
    space: SearchSpace
    width: int
    tables: GeneTables
    deviation: NetworkDeviation
    latency_ms: FloatArray
    held_out: FloatArray
    hyperparameters: FloatArray

    @classmethod
    def fit(
        cls,
        name: str,
        space: SearchSpace,
        parts: Parts,
        process: PartProcess,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> CompiledPredictor:
        """Fit the latencies of parts and compile them.

        Args:
            name: Under which the predictor is registered.
            space: Of the networks.
            parts: That the networks are made of.
            process: Which learns their latencies.
            genotypes: Measured networks.
            latency_ms: Their latencies, shape `(n,)`.
        """
        latency_ms = np.asarray(latency_ms, float)
        counts = parts.counts(genotypes)
        learned = process.fit(counts, latency_ms)
        tables = parts.tables(learned.columns)
        held_out = process.cross_validate(counts, latency_ms)
        return cls(
            name=name,
            space=space,
            width=parts.width,
            tables=tables,
            deviation=learned.deviation,
            latency_ms=latency_ms,
            held_out=held_out,
            hyperparameters=process.hyperparameters,
        )

    @classmethod
    def refit(
        cls,
        predictor: LatencyPredictor,
        parts: Parts,
        process: PartProcess,
        genotypes: Sequence[Genotype],
        latency_ms: FloatArray,
    ) -> CompiledPredictor:
        """Learn from more samples, under the same hyperparameters.

        Intervals stay scaled by the cross-validation of the calibration, whose samples were not
        chosen for being near a limit or a front.

        Args:
            predictor: Compiled from the same parts.
            parts: That the networks are made of.
            process: Which learns their latencies.
            genotypes: All measured networks.
            latency_ms: Their latencies, shape `(n,)`.
        """
        assert isinstance(predictor, cls)
        counts = parts.counts(genotypes)
        learned = process.condition(predictor.hyperparameters, counts, latency_ms)
        tables = parts.tables(learned.columns)
        return replace(predictor, tables=tables, deviation=learned.deviation)

    def predict(self, genotypes: Sequence[Genotype] | IntArray) -> Prediction:
        """Look latencies up; see `LatencyPredictor.predict`."""
        sums = self.tables(self.space.matrix(genotypes))
        mean_ms, std_ms = of_networks(sums, self.deviation).T
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
        arrays: dict[str, Any] = self.tables.arrays() | self.deviation.arrays()
        arrays |= {name: getattr(self, name) for name in SAMPLES}
        np.savez(path / "predictor.npz", **arrays)
        record = {
            "predictor": self.name,
            "space": search_spaces.registry.settings(self.space),
            "width": self.width,
            "compared": dict(self.compared),
        }
        write_json_atomically(path / "predictor.json", record)

    @classmethod
    def load(cls, path: Path) -> CompiledPredictor:
        """Read what `save` wrote.

        Raises:
            ConfigError: The tables do not fit the space of today.
        """
        record = json.loads((path / "predictor.json").read_text("utf-8"))
        space = search_spaces.get(**record["space"])
        with np.load(path / "predictor.npz", allow_pickle=False) as file:
            arrays = dict(file)
        samples = [arrays.pop(name) for name in SAMPLES]
        try:
            tables = GeneTables.from_arrays(arrays, space.cardinalities)
            deviation = NetworkDeviation.from_arrays(arrays)
        except (ValueError, IndexError, KeyError) as error:
            expected = "tables over the genes that the space has today"
            raise ConfigError(str(path), str(error), expected, "calibrate it again") from error
        loaded = cls(record["predictor"], space, int(record["width"]), tables, deviation, *samples)
        object.__setattr__(loaded, "compared", record["compared"])
        return loaded
