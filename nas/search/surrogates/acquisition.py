"""Expected hypervolume improvement, exactly, for objectives that are known and unknown.

One objective is the depth, the others span a plane of sides. A front leaves open, over every point
of the plane, the depth up to the best of its points that are no worse in all sides. That threshold
`u` is constant within cells, so a new point with depth `y` and sides `k` adds

    sum over cells of (volume of the cell that lies beyond k) * max(0, u - y).

Where objectives are independent and normal given what was learned, the expectation of a product is
the product of expectations, each of the form `E max(0, b - k)`, which is closed for every normal
variable and also for a constant. So the sum is exact for any number of unknown objectives. The
cells are those of the grid through the front for up to two sides. For more their number explodes,
and a Sobol' sequence integrates over the sides instead.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import qmc

FloatArray = npt.NDArray[np.float64]

FAR = 5.0
"""Standard deviations of luck in every unknown objective beyond which nothing is looked at."""

INTEGRATION_POINTS = 1024
"""Points of the Sobol' sequence."""

LEAST = -300.0
"""Logarithm of the least improvement that is told from none."""

CELLS_AT_ONCE = 2**22
"""Candidates times cells that are in memory at a time."""


def log_expected_improvement(
    front: FloatArray, reference: FloatArray, mean: FloatArray, std: FloatArray
) -> FloatArray:
    """Return the logarithm of the expected hypervolume improvement of candidates.

    Where nothing is gained but by luck of more than `FAR` deviations, the deviations that are
    missing continue it below `LEAST`, so that the likeliest improvement is still told.

    Args:
        front: Points seen, to be minimised, shape `(p, m)`; dominated ones change nothing.
        reference: Shape `(m,)`.
        mean: Of the candidates, shape `(n, m)`; the first objective is the depth.
        std: Their standard deviations; 0 where an objective is known.

    Returns:
        Shape `(n,)`.
    """
    front = front[(front < reference).all(axis=1)]
    front = front[front[:, 0] <= thresholds(front, reference[0], front[:, 1:])]
    lucky = mean - FAR * std
    open_depth = thresholds(front, reference[0], lucky[:, 1:]) - mean[:, 0]
    missing = np.minimum(open_depth / np.maximum(std[:, 0], 1e-12), 0.0)
    outside = (lucky[:, 1:] >= reference[1:]).any(axis=1)
    scores = LEAST + np.where(outside, LEAST, np.maximum(missing, LEAST))
    promising = np.flatnonzero((open_depth > -FAR * std[:, 0]) & ~outside)
    gains = expected_improvement(front, reference, mean[promising], std[promising])
    scores[promising] = np.maximum(np.log(np.maximum(gains, np.exp(LEAST))), scores[promising])
    return scores


def expected_improvement(
    front: FloatArray, reference: FloatArray, mean: FloatArray, std: FloatArray
) -> FloatArray:
    """Return the expected hypervolume improvement; arguments as `log_expected_improvement` has."""
    sides = mean.shape[1] - 1
    improvement = _sampled if sides > 2 else _on_grid
    cells = INTEGRATION_POINTS if sides > 2 else (len(front) + 1) ** sides
    if len(mean) == 0:
        return np.empty(0)
    portions = np.array_split(np.arange(len(mean)), max(-(-len(mean) * cells // CELLS_AT_ONCE), 1))
    parts = [improvement(front, reference, mean[rows], std[rows]) for rows in portions]
    return np.concatenate(parts)


def thresholds(front: FloatArray, depth: float, sides: FloatArray) -> FloatArray:
    """Return the least depth that the front reaches at points of the plane of sides.

    Args:
        front: Points seen, shape `(p, m)`.
        depth: Of the reference point, which holds where no point of the front is.
        sides: Shape `(n, m - 1)`.
    """
    if sides.shape[1] == 1:
        order = np.argsort(front[:, 1])
        stairs = np.minimum.accumulate(np.concatenate([[depth], front[order, 0]]))
        passed = np.searchsorted(front[order, 1], sides[:, 0], side="right")
        return np.asarray(stairs[passed])
    least = np.full(len(sides), depth)
    for point in front:
        behind = (sides >= point[1:]).all(axis=1)
        least[behind] = np.minimum(least[behind], point[0])
    return least


def partial_expectation(bound: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    """Return `E max(0, bound - x)` for normal `x`; its arguments are broadcast."""
    excess = bound - mean
    if not std.any():
        return np.asarray(np.maximum(excess, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = excess / std
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    expected: FloatArray = np.where(
        std > 0, excess * ndtr(z) + std * density, np.maximum(excess, 0.0)
    )
    return expected


def _on_grid(
    front: FloatArray, reference: FloatArray, mean: FloatArray, std: FloatArray
) -> FloatArray:
    """Sum over the cells of the grid through the front; for up to two sides.

    Only those pairs of a candidate and a cell are looked at that luck of `FAR` deviations brings
    together, which are few.
    """
    lucky = mean - FAR * std
    edges = [
        np.unique([*front[:, i], lucky[:, i].min(), reference[i]]) for i in range(1, len(reference))
    ]
    cells = math.prod(len(edge) - 1 for edge in edges)
    low, high = (
        np.array(list(product(*(edge[ends] for edge in edges)))).reshape(cells, len(edges))
        for ends in (slice(None, -1), slice(1, None))
    )
    least = thresholds(front, reference[0], low)
    met = least > lucky[:, :1]
    for i, end in enumerate(high.T, 1):
        met &= end > lucky[:, i, None]
    rows, columns = np.nonzero(met)
    gains = partial_expectation(least[columns], mean[rows, 0], std[rows, 0])
    for i, (start, end) in enumerate(zip(low.T, high.T, strict=True), 1):
        reached = [
            partial_expectation(edge[columns], mean[rows, i], std[rows, i]) for edge in (start, end)
        ]
        gains *= reached[1] - reached[0]
    return np.bincount(rows, gains, minlength=len(mean)).astype(float)


def _sampled(
    front: FloatArray, reference: FloatArray, mean: FloatArray, std: FloatArray
) -> FloatArray:
    """Integrate over the sides with a Sobol' sequence."""
    low = (mean - FAR * std)[:, 1:].min(axis=0)
    high = reference[1:]
    sequence = qmc.Sobol(len(high), scramble=False).random(INTEGRATION_POINTS)
    points = low + sequence * (high - low)
    least = thresholds(front, reference[0], points)
    gains = partial_expectation(least, mean[:, :1], std[:, :1])
    for i, side in enumerate(points.T, 1):
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (side - mean[:, i : i + 1]) / std[:, i : i + 1]
        gains *= np.where(std[:, i : i + 1] > 0, ndtr(z), side >= mean[:, i : i + 1])
    total: FloatArray = gains.mean(axis=1) * np.prod(high - low)
    return total
