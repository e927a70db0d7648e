"""Predictors that are a regression on features of an architecture, kept as their samples.

Fitting again is a matter of milliseconds and cannot go out of date.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

import search_spaces
from latency_predictors import PredictorSettings
from nas.core.files import write_json_atomically
from nas.core.host import one_thread
from nas.core.prediction import FloatArray, LatencyPredictor, Prediction
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

FOLDS = 10


class Regression(LatencyPredictor):
    """A regression that was fitted to samples."""

    name: ClassVar[str]

    @one_thread()
    def __init__(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> None:
        """Fit to samples.

        Args:
            space: Of the networks.
            genotypes: Measured networks.
            latency_ms: Their latencies, shape `(n,)`, in milliseconds.
        """
        self.space = space
        self._genotypes = space.matrix(genotypes).copy()
        self._latency_ms = np.asarray(latency_ms, float)
        features = self.features(self._genotypes)
        self._held_out = self._cross_validate(features)
        self.fit(features, self._latency_ms)

    @abstractmethod
    def features(self, genotypes: IntArray) -> FloatArray:
        """Return features of rows of genotypes, shape `(n, f)`."""

    @abstractmethod
    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        """Fit to samples."""

    @abstractmethod
    def evaluate(self, features: FloatArray) -> FloatArray:
        """Return latencies and how unsure they are, both in milliseconds, shape `(n, 2)`."""

    @one_thread()
    def predict(self, genotypes: Sequence[Genotype] | IntArray) -> Prediction:
        """Predict latencies; see `LatencyPredictor.predict`."""
        mean_ms, std_ms = self.evaluate(self.features(self.space.matrix(genotypes))).T
        scores = np.abs(self._held_out[:, 0] - self._latency_ms) / self._held_out[:, 1]
        return Prediction(mean_ms, std_ms, np.sort(scores))

    def held_out_errors(self) -> FloatArray:
        """Return relative errors by cross-validation; see `LatencyPredictor.held_out_errors`."""
        errors: FloatArray = self._held_out[:, 0] / self._latency_ms - 1
        return errors

    def _cross_validate(self, features: FloatArray) -> FloatArray:
        n = len(features)
        predicted = np.empty((n, 2))
        order = np.random.default_rng(0).permutation(n)
        for fold in np.array_split(order, min(FOLDS, n)):
            rest = np.setdiff1d(order, fold)
            self.fit(features[rest], self._latency_ms[rest])
            predicted[fold] = self.evaluate(features[fold])
        return predicted

    def save(self, path: Path) -> None:
        """Write `predictor.json` and `predictor.npz`; see `LatencyPredictor.save`."""
        path.mkdir(parents=True, exist_ok=True)
        samples = {"genotypes": self._genotypes, "latency_ms": self._latency_ms}
        np.savez(path / "predictor.npz", **samples)  # type: ignore[arg-type]
        record = {"predictor": self.name, "space": search_spaces.registry.settings(self.space)}
        write_json_atomically(path / "predictor.json", record | {"compared": dict(self.compared)})


@dataclass(frozen=True, kw_only=True)
class RegressionSettings(PredictorSettings):
    """Settings of a regression."""

    regression: ClassVar[type[Regression]]

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        """Fit the regression; see `PredictorSettings.fit`."""
        return self.regression(space, genotypes, latency_ms)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        """Read a saved predictor; see `PredictorSettings.load`."""
        record = json.loads((path / "predictor.json").read_text("utf-8"))
        with np.load(path / "predictor.npz", allow_pickle=False) as arrays:
            genotypes, latency_ms = arrays["genotypes"], arrays["latency_ms"]
        space = search_spaces.get(**record["space"])
        loaded = cls.regression(space, genotypes, latency_ms)
        loaded.compared = record["compared"]
        return loaded
