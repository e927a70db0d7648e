"""How much the deviations of two parts from their rooflines have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from latency_predictors.calibration.fusion import Kernel
from latency_predictors.calibration.roofline import kind_of


class Similarity:
    """Covariances of relative deviations.

    Parts of one kind deviate alike, the more so the closer their sizes and epilogues are. Parts
    that are not `shared` have nothing but their kind in common.

    Attributes:
        dimensions: Number of sizes in which the parts differ; 0 if they are not shared.
    """

    def __init__(self, parts: Sequence[Kernel], *, shared: bool) -> None:
        """Compare parts.

        Args:
            parts: All parts of a space.
            shared: Whether parts learn from similar ones.
        """
        self._shared = shared
        logs = np.array([_logarithms(part) for part in parts])
        varying = logs.std(axis=0) > 0
        self._logs = torch.as_tensor(logs[:, varying])
        self.dimensions = int(varying.sum()) if shared else 0
        self._kind = torch.as_tensor(_numbers([kind_of(part) for part in parts]))
        self._epilogue = torch.as_tensor(_numbers([part.epilogue for part in parts]))

    def covariance(
        self,
        scales: torch.Tensor,
        lengths: torch.Tensor,
        rows: torch.Tensor | slice,
        columns: torch.Tensor,
    ) -> torch.Tensor:
        """Return covariances of some parts with others, shape `(rows, columns)`.

        Args:
            scales: Deviation of a part, how little parts of other epilogues have in common,
                deviation of a kind; shape `(3,)`.
            lengths: Over which parts are alike, in logarithms of their sizes, shape
                `(dimensions,)`.
            rows: Positions of parts.
            columns: Positions of the others.
        """
        amplitude, epilogue, kind = scales
        same_kind = self._kind[rows][:, None] == self._kind[columns]
        if not self._shared:
            positions = torch.arange(len(self._kind))
            same = positions[rows][:, None] == positions[columns]
            apart: torch.Tensor = amplitude**2 * same + kind**2 * same_kind
            return apart
        scaled = self._logs / lengths
        smooth = squared_exponential(scaled[rows], scaled[columns])
        same_epilogue = self._epilogue[rows][:, None] == self._epilogue[columns]
        common = torch.where(same_epilogue, 1.0, torch.exp(-epilogue))
        covariance: torch.Tensor = same_kind * (amplitude**2 * smooth * common + kind**2)
        return covariance

    def variance(self, scales: torch.Tensor) -> torch.Tensor:
        """Return the variance of every part, shape `(parts,)`."""
        amplitude, _, kind = scales
        variance: torch.Tensor = (amplitude**2 + kind**2).expand(len(self._kind))
        return variance


def squared_exponential(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the squared exponential covariance of rows, in units of their length."""
    distances = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-0.5 * distances**2)


def _numbers(labels: Sequence[object]) -> list[int]:
    known: dict[object, int] = {}
    return [known.setdefault(label, len(known)) for label in labels]


def _logarithms(part: Kernel) -> list[float]:
    values = (
        part.input_channels,
        part.output_channels,
        part.output_values / part.output_channels,
        1 + part.input_values / part.output_values,
    )
    return [float(np.log(value)) for value in values]
