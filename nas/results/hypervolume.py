"""Hypervolume, domination and the knee of a front; every objective is minimised."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import moocore
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
    array = _checked_points(points)
    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(array, keep_weakly=True)
    return mask


def hypervolume(points: Points, reference: Sequence[float] | FloatArray) -> float:
    """Return the volume that the points dominate below the reference point, exactly.

    Args:
        points: Shape `(n, m)`. One that is not better than the reference everywhere adds nothing.
        reference: Shape `(m,)`.

    Returns:
        Volume in the product of the objectives' units; 0 without points.

    Raises:
        ValueError: The shapes do not fit, or there is NaN or an infinite reference or point.
    """
    return _volume(*_checked_points_and_reference(points, reference))


def hypervolume_order(
    points: Points, reference: Sequence[float] | FloatArray, most: int | None = None
) -> list[int]:
    """Return the front's points in the greedy order of what each adds to the hypervolume.

    The first `k` are the greedy choice of `k` points that stand for the front. Contributions only
    shrink while points are added (hypervolume is submodular), so a stale contribution is an upper
    bound and most need no update (lazy greedy: Minoux, 1978).

    Args:
        points: Shape `(n, m)`; dominated ones are left out.
        reference: Shape `(m,)`.
        most: How many are wanted; `None` for all. The order of the first ones takes far less time.

    Returns:
        Indices into `points`; those that add nothing come last, ties in the order given.

    Raises:
        ValueError: As `hypervolume` does.
    """
    array, corner = _checked_points_and_reference(points, reference)
    bounds = [(-np.inf, int(index), -1) for index in np.flatnonzero(non_dominated(array))]
    chosen: list[int] = []
    volume = 0.0
    while bounds and (most is None or len(chosen) < most):
        _, index, chosen_then = heapq.heappop(bounds)
        if chosen_then == len(chosen):
            chosen.append(index)
            volume = _volume(array[chosen], corner)
            continue
        gain = _volume(array[[*chosen, index]], corner) - volume
        heapq.heappush(bounds, (-gain, index, len(chosen)))
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
    array = _checked_points(points)
    if len(array) == 0:
        raise ValueError("points: got none, expected a front of one point or more")
    low = array.min(axis=0)
    span = array.max(axis=0) - low
    scaled = (array - low) / np.where(span > 0, span, 1.0)
    return int(scaled.sum(axis=1).argmin())


def _volume(points: FloatArray, corner: FloatArray) -> float:
    if len(corner) == 1:  # moocore takes two objectives or more
        return float(max(corner[0] - points.min(initial=corner[0]), 0.0))
    return float(moocore.hypervolume(points, ref=corner))


def _checked_points(points: Points) -> FloatArray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"points: got shape {array.shape}, expected (n, m)")
    if np.isnan(array).any():
        raise ValueError("points: got NaN, expected numbers; leave out what has no value")
    return array


def _checked_points_and_reference(
    points: Points, reference: Sequence[float] | FloatArray
) -> tuple[FloatArray, FloatArray]:
    corner = np.asarray(reference, dtype=np.float64)
    array = np.asarray(points, dtype=np.float64)
    # An empty list of points has no width of its own.
    array = _checked_points(array if array.size else array.reshape(0, corner.size))
    if corner.ndim != 1 or array.shape[1] != len(corner) or len(corner) == 0:
        got = f"{array.shape} and {corner.shape}"
        raise ValueError(f"points and reference: got shapes {got}, expected (n, m) and (m,)")
    if not np.isfinite(corner).all() or np.isneginf(array).any():
        raise ValueError("points and reference: got an infinite volume, expected finite numbers")
    return array, corner
