"""Latency predictors: a calibrated model of one device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
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
        std_ms: Standard deviation of the prediction, shape `(n,)`.
    """

    mean_ms: FloatArray
    std_ms: FloatArray


class LatencyPredictor(ABC):
    """Maps architectures to milliseconds on the device that it was calibrated on."""

    @abstractmethod
    def predict(self, genotypes: Sequence[Genotype]) -> Prediction:
        """Predict the latency of every genotype, in milliseconds."""

    @abstractmethod
    def leave_one_out(self) -> FloatArray:
        """Return how far each sample of the calibration is predicted from the others.

        Returns:
            Predicted by measured latency, less 1, shape `(n,)`.
        """

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the predictor into the folder `path`, as arrays and JSON."""
