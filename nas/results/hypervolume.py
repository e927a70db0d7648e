"""Hypervolume, domination and the knee of a front; every objective is minimised."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Points = Sequence[Sequence[float]] | npt.NDArray[np.floating]


def non_dominated(points: Points) -> npt.NDArray[np.bool_]:
    """Return which points no other point dominates.

    A point dominates another if it is no worse in every objective and better in one. Equal points
    do not dominate each other: all of them are kept.

    Args:
        points: Shape `(n, m)`.

    Returns:
        Mask, shape `(n,)`.

    Raises:
        ValueError: The points have another shape or hold NaN.
    """
    array = _checked(points)
    kept = np.ones(len(array), dtype=np.bool_)
    for index, point in enumerate(array):
        if kept[index]:
            kept &= ~((array >= point).all(axis=1) & (array > point).any(axis=1))
    return kept


def hypervolume(points: Points, reference: Sequence[float] | FloatArray) -> float:
    """Return the volume that the points dominate below the reference point, exactly.

    Two objectives are swept; more are cut into slices along the last one, each of which is a
    problem of one objective less (hypervolume by slicing objectives: While, Hingston, Barone and
    Huband, "A faster algorithm for calculating hypervolume", IEEE TEC 10(1), 2006).

    Args:
        points: Shape `(n, m)`. One that is not better than the reference everywhere adds nothing.
        reference: Shape `(m,)`.

    Returns:
        Volume in the product of the objectives' units; 0 without points.

    Raises:
        ValueError: The shapes do not fit, or there is NaN or an infinite reference or point.
    """
    array, corner = _checked_pair(points, reference)
    return _volume(array[(array < corner).all(axis=1)], corner)


def hypervolume_order(points: Points, reference: Sequence[float] | FloatArray) -> list[int]:
    """Return the front's points in the greedy order of what each adds to the hypervolume.

    The first `k` are the greedy choice of `k` points that stand for the front. Contributions only
    shrink while points are added (hypervolume is submodular), so a stale contribution is an upper
    bound and most need no update (lazy greedy: Minoux, 1978).

    Args:
        points: Shape `(n, m)`; dominated ones are left out.
        reference: Shape `(m,)`.

    Returns:
        Indices into `points`; those that add nothing come last, ties in the order given.

    Raises:
        ValueError: As `hypervolume` does.
    """
    array, corner = _checked_pair(points, reference)
    bounds = [(-np.inf, int(index), -1) for index in np.flatnonzero(non_dominated(array))]
    chosen: list[int] = []
    while bounds:
        bound, index, chosen_then = heapq.heappop(bounds)
        if chosen_then == len(chosen):
            chosen.append(index)
            continue
        bound = -_contribution(array[index], array[chosen], corner)
        heapq.heappush(bounds, (bound, index, len(chosen)))
    return chosen


def knee(points: Points) -> int:
    """Return the index of a front's knee: the point furthest from the chord of its extremes.

    The distance of Das, "On characterizing the 'knee' of the Pareto curve based on
    Normal-Boundary Intersection" (Structural Optimization 18, 1999), after every objective is
    scaled to the front's range. In two objectives the extremes then lie at (0, 1) and (1, 0), so
    the distance below their chord falls with the sum of the scaled objectives. In more, the plane
    with equal intercepts stands for the one through the extremes.

    Args:
        points: A front, shape `(n, m)`, `n >= 1`.

    Raises:
        ValueError: There is no point, the shape is another, or there is NaN.
    """
    array = _checked(points)
    if len(array) == 0:
        raise ValueError("points: got none, expected a front of one point or more")
    low = array.min(axis=0)
    span = array.max(axis=0) - low
    scaled = (array - low) / np.where(span > 0, span, 1.0)
    return int(scaled.sum(axis=1).argmin())


def _contribution(point: FloatArray, chosen: FloatArray, corner: FloatArray) -> float:
    """Return the volume that `point` dominates and `chosen` does not."""
    if not (point < corner).all():
        return 0.0
    shared = np.maximum(chosen, point)
    shared = shared[(shared < corner).all(axis=1)]
    return float(np.prod(corner - point)) - _volume(shared, corner)


def _volume(points: FloatArray, corner: FloatArray) -> float:
    """Return the volume between `corner` and points that are better than it everywhere."""
    if len(points) == 0:
        return 0.0
    if len(corner) == 1:
        return float(corner[0] - points.min())
    points = points[points[:, -1].argsort(kind="stable")]
    depths = np.diff(points[:, -1], append=corner[-1])
    if len(corner) == 2:
        return float((corner[0] - np.minimum.accumulate(points[:, 0])) @ depths)
    total = 0.0
    front = points[:0, :-1]
    for point, depth in zip(points, depths, strict=True):
        # A point that an earlier slice's front covers changes neither that front nor its area.
        if not (front <= point[:-1]).all(axis=1).any():
            front = np.vstack([front[(front < point[:-1]).any(axis=1)], point[:-1]])
            area = _volume(front, corner[:-1])
        total += depth * area
    return total


def _checked(points: Points) -> FloatArray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"points: got shape {array.shape}, expected (n, m)")
    if np.isnan(array).any():
        raise ValueError("points: got NaN, expected numbers; leave out what has no value")
    return array


def _checked_pair(
    points: Points, reference: Sequence[float] | FloatArray
) -> tuple[FloatArray, FloatArray]:
    corner = np.asarray(reference, dtype=np.float64)
    array = np.asarray(points, dtype=np.float64)
    # An empty list of points has no width of its own.
    array = _checked(array if array.size else array.reshape(0, corner.size))
    if corner.ndim != 1 or array.shape[1] != len(corner) or len(corner) == 0:
        got = f"{array.shape} and {corner.shape}"
        raise ValueError(f"points and reference: got shapes {got}, expected (n, m) and (m,)")
    if not np.isfinite(corner).all() or np.isneginf(array).any():
        raise ValueError("points and reference: got an infinite volume, expected finite numbers")
    return array, corner
