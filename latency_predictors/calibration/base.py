"""What calibrated predictors share: they are kept as their samples, and know how well they predict.

Fitting again is a matter of milliseconds and cannot go out of date.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

import search_spaces
from latency_predictors import AGAIN, PredictorSettings
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.host import one_thread
from nas.core.prediction import FloatArray, LatencyPredictor, Prediction
from nas.core.records import decoding, read_json
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

FOLDS = 10


class CalibratedPredictor(LatencyPredictor):
    """A predictor that was fitted to samples.

    Attributes:
        name: Under which the predictor is registered.
        space: Of the networks.
        genotypes: Measured networks, shape `(n, genes)`.
        measured: What was measured of them, shape `(n,)`: milliseconds, or the megabytes of
            `latency_predictors.calibration.memory`.
        held_out: The same predicted from the other samples, and how unsure, shape `(n, 2)`.
    """

    name: str
    space: SearchSpace
    genotypes: IntArray
    measured: FloatArray
    held_out: FloatArray

    @abstractmethod
    def estimate(self, genotypes: IntArray) -> FloatArray:
        """Return predictions and how unsure they are, in the unit of `measured`, `(n, 2)`."""

    @one_thread()
    def predict(self, genotypes: Sequence[Genotype] | IntArray) -> Prediction:
        mean_ms, std_ms = self.estimate(self.space.matrix(genotypes)).T
        scores = np.abs(self.held_out[:, 0] - self.measured) / self.held_out[:, 1]
        return Prediction(mean_ms, std_ms, np.sort(scores))

    def held_out_errors(self) -> FloatArray:
        errors: FloatArray = self.held_out[:, 0] / self.measured - 1
        return errors

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays from which the predictor is fitted again."""
        return {"genotypes": self.genotypes, "measured": self.measured}

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.savez(path / "predictor.npz", **self.arrays())  # type: ignore[arg-type]
        record = {
            "predictor": self.name,
            "space": search_spaces.registry.settings(self.space),
            "space_id": self.space.space_id,
            "compared": dict(self.compared),
        }
        write_json_atomically(path / "predictor.json", record)


def read_saved(path: Path) -> tuple[SearchSpace, dict[str, npt.NDArray[Any]]]:
    """Return the space and the arrays that `CalibratedPredictor.save` wrote.

    Raises:
        ConfigError: The code of the space was another.
        HwnasError: A file is missing or damaged.
    """
    file = path / "predictor.json"
    record = read_json(file, {"space": dict, "space_id": str}, AGAIN)
    with decoding(file, AGAIN):
        space = search_spaces.get(**record["space"])
    if record["space_id"] != space.space_id:
        expected = "a predictor of the space as its code is today"
        raise ConfigError("path", str(path), expected, "calibrate it again")
    with decoding(path / "predictor.npz", AGAIN):
        with np.load(path / "predictor.npz", allow_pickle=False) as found:
            arrays = dict(found)
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
                raise ValueError(f"array {name!r} holds what is no finite number")
    return space, arrays


def folds(n: int) -> list[tuple[IntArray, IntArray]]:
    """Return the positions that are left out, and the rest, for every fold of `n` samples."""
    order = np.random.default_rng(0).permutation(n)
    return [(fold, np.setdiff1d(order, fold)) for fold in np.array_split(order, min(FOLDS, n))]


class Regression(CalibratedPredictor):
    """A regression on features of an architecture."""

    @one_thread()
    def __init__(
        self, space: SearchSpace, genotypes: Sequence[Genotype] | IntArray, latency_ms: FloatArray
    ) -> None:
        """Fit to measured networks and their latencies in milliseconds, shape `(n,)`."""
        self.space = space
        self.genotypes = space.matrix(genotypes).copy()
        self.measured = np.asarray(latency_ms, float)
        features = self.features(self.genotypes)
        self.held_out = np.empty((len(features), 2))
        for fold, rest in folds(len(features)):
            self.fit(features[rest], self.measured[rest])
            self.held_out[fold] = self.evaluate(features[fold])
        self.fit(features, self.measured)

    @abstractmethod
    def features(self, genotypes: IntArray) -> FloatArray:
        """Return features of rows of genotypes, shape `(n, f)`."""

    @abstractmethod
    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        """Fit to samples."""

    @abstractmethod
    def evaluate(self, features: FloatArray) -> FloatArray:
        """Return latencies and how unsure they are, both in milliseconds, shape `(n, 2)`."""

    def estimate(self, genotypes: IntArray) -> FloatArray:
        return self.evaluate(self.features(genotypes))


@dataclass(frozen=True, kw_only=True)
class RegressionSettings(PredictorSettings):
    """Settings of a regression."""

    regression: ClassVar[type[Regression]]

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        return self.regression(space, genotypes, latency_ms)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        space, arrays = read_saved(path)
        return cls.regression(space, arrays["genotypes"], arrays["measured"])
