"""The roofline of parts: what they would take by the rates of their kind.

A part takes a call's overhead and a time in proportion to its arithmetic, its memory traffic and
its weights (Williams et al., Communications of the ACM, 2009), with rates that are not negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latency_predictors.calibration.fusion import Kernel
from nas.core.prediction import FloatArray

SHRINKAGE = 0.03
"""Pull of a kind's own rates towards none, beside which rates that all kinds share are free."""

FREEDOM = 0.05
"""The same of the shared rates."""

SHARED = 4
"""Columns of the rates that all kinds share: calls, arithmetic, traffic, weights."""


def kind_of(part: Kernel) -> str:
    """Return the kind; the same layer is other code of the runtime where channels are blocked."""
    return f"blocked {part.kind}" if part.blocked else part.kind


def roofline_features(parts: Sequence[Kernel]) -> FloatArray:
    """Return calls, arithmetic, traffic and weights of every part.

    Returns:
        Shape `(parts, columns)`: the four of its kind in columns of the kind, the outputs that
        each epilogue works on, and the four once more in columns that all kinds share.
    """
    kinds = sorted({kind_of(part) for part in parts})
    epilogues = sorted({kind for part in parts for kind in part.epilogue})
    features = np.zeros((len(parts), 4 * len(kinds) + len(epilogues) + SHARED))
    for row, part in zip(features, parts, strict=True):
        traffic = part.input_values + part.output_values
        four = (1, part.macs / 1e6, traffic / 1e5, part.params / 1e5)
        start = 4 * kinds.index(kind_of(part))
        row[start : start + 4] = row[-SHARED:] = four
        for kind in part.epilogue:
            row[4 * len(kinds) + epilogues.index(kind)] += part.output_values / 1e5
    return features


def roofline(features: FloatArray, counts: FloatArray, latency_ms: FloatArray) -> FloatArray:
    """Return latencies of parts by rates that are not negative, shape `(parts,)`.

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
    contribution: FloatArray = features @ (rates / mean)
    return contribution
