"""Latency predictors: a calibrated model of one device."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.core.space import Genotype

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predicted latencies.

    Attributes:
        mean_ms: Expected latency, shape `(n,)`.
        std_ms: How unsure it is, shape `(n,)`: a scale, which `interval_ms` turns into an
            interval.
        scores: By how many `std_ms` each sample of the calibration was missed when it was
            predicted from the others, ascending.
    """

    mean_ms: FloatArray
    std_ms: FloatArray
    scores: FloatArray = field(default_factory=lambda: np.zeros(0))

    def interval_ms(self, coverage: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper ends of an interval that covers new networks so often.

        Conformal: the interval is as wide as it had to be for that share of the samples of the
        calibration (Vovk, Machine Learning 92, 2013, cross-conformal predictors; scaled as in
        Lei et al., JASA 2018, section 5.2). With few samples and a high coverage it is infinite.

        Args:
            coverage: Between 0 and 1.
        """
        rank = math.ceil((len(self.scores) + 1) * coverage)
        factor = float(self.scores[rank - 1]) if rank <= len(self.scores) else math.inf
        half = factor * self.std_ms
        return np.maximum(self.mean_ms - half, 0), self.mean_ms + half


class Predictor(ABC):
    """Maps architectures to what was measured of others on one device."""

    @abstractmethod
    def held_out_errors(self) -> FloatArray:
        """Return how far each sample of the calibration is predicted from the others.

        Returns:
            Predicted by measured value, less 1, shape `(n,)`.
        """

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the predictor into the folder `path`, as arrays and JSON."""


class LatencyPredictor(Predictor):
    """Maps architectures to milliseconds on the device that it was calibrated on.

    Attributes:
        compared: Root mean square of the relative errors of every predictor that stood for
            election, by name; empty where there was no election.
    """

    compared: Mapping[str, float] = {}

    @abstractmethod
    def predict(self, genotypes: Sequence[Genotype] | npt.NDArray[np.int64]) -> Prediction:
        """Predict the latency of every genotype, in milliseconds.

        Args:
            genotypes: A sequence, or an array of shape `(n, genes)`.
        """


class MemoryPredictor(Predictor):
    """Maps architectures to peak memory, or flash, on the device that it was calibrated on."""

    @abstractmethod
    def predict_mb(self, genotypes: Sequence[Genotype] | npt.NDArray[np.int64]) -> FloatArray:
        """Predict the memory of every genotype, in megabytes (10^6 bytes), shape `(n,)`.

        Args:
            genotypes: A sequence, or an array of shape `(n, genes)`.
        """


class LearningPredictor(LatencyPredictor):
    """A predictor that a better one may take the place of while it is in use.

    Attributes:
        current: The one that predicts.
    """

    def __init__(self, current: LatencyPredictor) -> None:
        self.current = current

    def predict(self, genotypes: Sequence[Genotype] | npt.NDArray[np.int64]) -> Prediction:
        return self.current.predict(genotypes)

    def held_out_errors(self) -> FloatArray:
        return self.current.held_out_errors()

    def save(self, path: Path) -> None:
        self.current.save(path)
