"""Expected hypervolume improvement, exactly, for objectives that are known and unknown.

One objective is the depth, the others span a plane of sides. A front leaves open, over every point
of the plane, the depth up to the best of its points that are no worse in all sides. That threshold
`u` is constant within boxes, so a new point with depth `y` and sides `k` adds

    sum over boxes of (volume of the box that lies beyond k) * max(0, u - y).

Where objectives are independent and normal given what was learned, the expectation of a product is
the product of expectations, each of the form `E max(0, b - k)`, which is closed for every normal
variable and also for a constant. So the sum is exact for any number of unknown objectives. For up
to two sides boxes are no more than three times the front's points (as in Yang, Emmerich, Deutz and
Back, "Efficient computation of expected hypervolume improvement using box decomposition
algorithms", Journal of Global Optimization 75, 2019). For more their number explodes, and a Sobol'
sequence integrates over the sides instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

from nas.core.prediction import FloatArray

FAR = 5.0
"""Standard deviations of luck in every unknown objective beyond which nothing is looked at."""

INTEGRATION_POINTS = 1024
"""Points of the Sobol' sequence."""

LEAST = -300.0
"""Logarithm of the least improvement that is told from none."""

TERMS_AT_ONCE = 2**22
"""Candidates times boxes, or points, that are in memory at a time."""


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
    if len(mean) == 0:
        return np.empty(0)
    if mean.shape[1] > 3:
        terms, improvement = INTEGRATION_POINTS, partial(_sampled, front, reference)
    else:
        start = (mean - FAR * std)[:, 1:].min(axis=0)
        boxes = Boxes.open_over(front, reference, start)
        terms, improvement = len(boxes.least), partial(_over_boxes, boxes)
    portions = np.array_split(np.arange(len(mean)), -(-len(mean) * terms // TERMS_AT_ONCE))
    return np.concatenate([improvement(mean[rows], std[rows]) for rows in portions])


def thresholds(front: FloatArray, depth: float, sides: FloatArray) -> FloatArray:
    """Return the least depth that the front reaches at points of the plane of sides.

    Args:
        front: Points seen, shape `(p, m)`.
        depth: Of the reference point, which holds where no point of the front is.
        sides: Shape `(n, m - 1)`.
    """
    if sides.shape[1] in (1, 2):
        ascending = np.sort(front[:, 1:], axis=0).T
        stairs = np.full([len(front) + 1] * len(ascending), depth)
        places = zip(ascending, front[:, 1:].T, strict=True)
        at = tuple(np.searchsorted(edges, own, side="left") + 1 for edges, own in places)
        np.minimum.at(stairs, at, front[:, 0])
        for axis in range(stairs.ndim):
            stairs = np.minimum.accumulate(stairs, axis=axis)
        reached = zip(ascending, sides.T, strict=True)
        passed = tuple(np.searchsorted(edges, own, side="right") for edges, own in reached)
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


@dataclass(frozen=True)
class Boxes:
    """Disjoint boxes in the plane of sides, over each of which a front leaves one depth open.

    Attributes:
        low: Their lower corners, shape `(b, m - 1)`.
        high: Their upper corners.
        least: The least depth that the front reaches over them, shape `(b,)`.
    """

    low: FloatArray
    high: FloatArray
    least: FloatArray

    @classmethod
    def open_over(cls, front: FloatArray, reference: FloatArray, start: FloatArray) -> Boxes:
        """Return the boxes between `start` and the reference point, for up to two sides."""
        if len(start) < 2:
            edges = np.zeros((2, 0))
            if len(start):
                edges = np.unique([*front[:, 1], *start, reference[1]])[:, None]
            return cls(edges[:-1], edges[1:], thresholds(front, reference[0], edges[:-1]))
        points = front[(front < reference).all(axis=1)]
        points = np.column_stack([points[:, 0], np.maximum(points[:, 1:], start)])
        # Along the first side points come in one by one. Over the second side the thresholds are
        # stairs, whose steps are given by their left end and depth. A box lasts as long as a step.
        stairs = [(start[1], reference[0])]
        begun = {(start[1], reference[2], reference[0]): start[0]}
        boxes = []
        for depth, side, left in points[np.argsort(points[:, 1], kind="stable")].tolist():
            if any(at <= left and least <= depth for at, least in stairs):
                continue
            stairs = [(at, least) for at, least in stairs if at < left or least < depth]
            stairs = sorted([*stairs, (left, depth)])
            rights = [*(at for at, _ in stairs[1:]), reference[2]]
            steps = [(at, right, least) for (at, least), right in zip(stairs, rights, strict=True)]
            boxes += [(begun.pop(step), side, *step) for step in list(begun) if step not in steps]
            begun = {**dict.fromkeys(steps, side), **begun}
        boxes += [(since, reference[1], *step) for step, since in begun.items()]
        columns = np.array([box for box in boxes if box[0] < box[1]]).reshape(-1, 5)
        return cls(columns[:, [0, 2]], columns[:, [1, 3]], columns[:, 4])


def _over_boxes(boxes: Boxes, mean: FloatArray, std: FloatArray) -> FloatArray:
    """Sum over boxes.

    Only those pairs of a candidate and a box are looked at that luck of `FAR` deviations brings
    together, which are few.
    """
    lucky = mean - FAR * std
    met = boxes.least > lucky[:, :1]
    for i, end in enumerate(boxes.high.T, 1):
        met &= end > lucky[:, i, None]
    rows, columns = np.nonzero(met)
    gains = partial_expectation(boxes.least[columns], mean[rows, 0], std[rows, 0])
    for i, (start, end) in enumerate(zip(boxes.low.T, boxes.high.T, strict=True), 1):
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
