"""What is expected of parts before they deviate from it, and how alike they deviate.

The roofline of a part is what it would take by the rates of its kind.

A part takes a call's overhead and a time in proportion to its arithmetic, its memory traffic and
its weights (Williams et al., Communications of the ACM, 2009), with rates that are not negative.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latency_predictors.calibration.fusion import Kernel
from nas.core.prediction import FloatArray

SHRINKAGE = 0.03
"""Pull of a kind's own rates towards none, beside which rates that all kinds share are free."""

FREEDOM = 0.05
"""The same of the shared rates."""

SHARED = 4
"""Columns of the rates that all kinds share: calls, arithmetic, traffic, weights."""


def kind_of(part: Kernel) -> str:
    """Return the kind: other code of the runtime for blocked channels, or in another deployment."""
    kind = f"blocked {part.kind}" if part.blocked else part.kind
    return f"{kind} deployed as {part.deployment}" if part.deployment else kind


class RooflineFeatures:
    """Calls, arithmetic, traffic and weights of parts, by kind."""

    def __init__(self, parts: Sequence[Kernel]) -> None:
        """Learn the kinds and epilogues of `parts`; others have no rates of their own."""
        self._kinds = {kind: i for i, kind in enumerate(sorted({kind_of(p) for p in parts}))}
        epilogues = sorted({kind for part in parts for kind in part.epilogue})
        self._epilogues = {kind: i for i, kind in enumerate(epilogues)}

    def __call__(self, parts: Sequence[Kernel]) -> FloatArray:
        """Return the features of parts.

        Returns:
            Shape `(parts, columns)`: the four of its kind in columns of the kind, the outputs that
            each epilogue works on, and the four once more in columns that all kinds share.
        """
        own = 4 * len(self._kinds)
        features = np.zeros((len(parts), own + len(self._epilogues) + SHARED))
        for row, part in zip(features, parts, strict=True):
            traffic = part.input_values + part.output_values
            row[-SHARED:] = (1, part.macs / 1e6, traffic / 1e5, part.params / 1e5)
            if (kind := self._kinds.get(kind_of(part))) is not None:
                row[4 * kind : 4 * kind + 4] = row[-SHARED:]
            for epilogue in part.epilogue:
                if (column := self._epilogues.get(epilogue)) is not None:
                    row[own + column] += part.output_values / 1e5
        return features


def roofline_rates(features: FloatArray, counts: FloatArray, latency_ms: FloatArray) -> FloatArray:
    """Return rates that are not negative, shape `(columns,)`.

    Least squares of relative errors, with a penalty on the rates (Lawson and Hanson, Solving
    Least Squares Problems, 1974, chapter 23).
    """
    from scipy.optimize import nnls

    totals = counts @ features
    # Rates are measured in what they contribute to a network on average.
    mean = totals.mean(axis=0)
    mean[mean == 0] = 1
    columns = totals / mean / latency_ms[:, None] * latency_ms.mean()
    penalty = np.full(len(mean), SHRINKAGE)
    penalty[-SHARED:] *= FREEDOM
    penalty *= np.sqrt(len(latency_ms))
    rows = np.vstack([columns, np.diag(penalty)])
    target = np.concatenate([np.full(len(latency_ms), latency_ms.mean()), np.zeros(len(mean))])
    rates, _ = nnls(rows, target)
    per_feature: FloatArray = rates / mean
    return per_feature


@dataclass(frozen=True)
class Encoded:
    """Parts as a covariance sees them, `n` of them.

    Attributes:
        logs: Logarithms of their sizes, shape `(n, 4)`.
        kinds: Numbers of their kinds.
        epilogues: Numbers of their epilogues.
        numbers: Equal for equal parts.
    """

    logs: torch.Tensor
    kinds: torch.Tensor
    epilogues: torch.Tensor
    numbers: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> Encoded:
        return Encoded(self.logs[rows], self.kinds[rows], self.epilogues[rows], self.numbers[rows])


class Similarity:
    """Covariances of relative deviations.

    Parts of one kind deviate alike, the more so the closer their sizes and epilogues are. Parts
    that are not `shared` have nothing but their kind in common.

    Attributes:
        dimensions: Number of sizes in which parts differ; 0 if they are not shared.
    """

    def __init__(self, *, shared: bool) -> None:
        """Compare parts, which learn from similar ones if they are `shared`."""
        self._shared = shared
        self.dimensions = 4 if shared else 0
        self._labels: dict[Hashable, int] = {}

    def encode(self, parts: Sequence[Kernel]) -> Encoded:
        """Return parts in the form that `covariance` takes."""
        logs = np.array([_logarithms(part) for part in parts]).reshape(-1, 4)
        labels = [
            [self._labels.setdefault(label, len(self._labels)) for label in of_all]
            for of_all in ([kind_of(p) for p in parts], [p.epilogue for p in parts], parts)
        ]
        return Encoded(torch.as_tensor(logs), *(torch.tensor(numbers) for numbers in labels))

    def covariance(
        self, scales: torch.Tensor, lengths: torch.Tensor, rows: Encoded, columns: Encoded
    ) -> torch.Tensor:
        """Return covariances of some parts with others, shape `(rows, columns)`.

        Args:
            scales: Deviation of a part, how little parts of other epilogues have in common,
                deviation of a kind; shape `(3,)`.
            lengths: Over which parts are alike, in logarithms of their sizes, shape
                `(dimensions,)`.
            rows: Some parts.
            columns: The others.
        """
        amplitude, epilogue, kind = scales
        same_kind = rows.kinds[:, None] == columns.kinds
        if not self._shared:
            same = rows.numbers[:, None] == columns.numbers
            apart: torch.Tensor = amplitude**2 * same + kind**2 * same_kind
            return apart
        smooth = squared_exponential(rows.logs / lengths, columns.logs / lengths)
        same_epilogue = rows.epilogues[:, None] == columns.epilogues
        common = torch.where(same_epilogue, 1.0, torch.exp(-epilogue))
        covariance: torch.Tensor = same_kind * (amplitude**2 * smooth * common + kind**2)
        return covariance


def squared_exponential(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the squared exponential covariance of rows, in units of their length."""
    distances = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-0.5 * distances**2)


def _logarithms(part: Kernel) -> list[float]:
    values = (
        part.input_channels,
        part.output_channels,
        part.output_values / part.output_channels,
        1 + part.input_values / part.output_values,
    )
    return [float(np.log(value)) for value in values]
