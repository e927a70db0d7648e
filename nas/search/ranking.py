"""Ranks of trials that compete on several objectives, under constraints or under noise."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from scipy.stats import rankdata

from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray


def constrained_ranks(values: FloatArray, excess: FloatArray) -> IntArray:
    """Return ranks by constrained domination (Deb et al., 2002, section VI).

    Args:
        values: Objectives, to be small, shape `(n, m)`.
        excess: By how much each breaks its constraints, 0 if it keeps them, shape `(n,)`.

    Returns:
        Shape `(n,)`: 0 for the non-dominated of those that keep the constraints, 1 for those that
        only these dominate, and so on; behind them all others, by what they break.
    """
    ranks = np.zeros(len(values), np.int64)
    kept = excess <= 0
    behind = 0
    if kept.any():
        ranks[kept] = moocore.pareto_rank(values[kept])
        behind = ranks[kept].max() + 1
    ranks[~kept] = behind + np.unique(excess[~kept], return_inverse=True)[1]
    return ranks


def crowding_distances(values: FloatArray, ranks: IntArray) -> FloatArray:
    """Return how far each is from its neighbours of equal rank (Deb et al., 2002, section III.B).

    Args:
        values: Objectives, shape `(n, m)`.
        ranks: Shape `(n,)`.

    Returns:
        Shape `(n,)`; infinite at the ends of a rank.
    """
    distances = np.empty(len(values))
    for rank in np.unique(ranks):
        members = ranks == rank
        distances[members] = get_crowding_function("cd").do(values[members])
    return distances


def most_promising(points: FloatArray, noise: FloatArray, count: int) -> list[int]:
    """Return the architectures that more training promises most of.

    They are taken front by front, and within a front by what each adds to the hypervolume, as in
    SMS-EMOA (Beume, Naujoks and Emmerich, EJOR 181(3), 2007). A front has what no other point
    clearly dominates: to do so, a point must be ahead by the noise in every noisy objective. Ties
    are thus soft, as in PASHA (Bohdal et al., ICLR 2023), for another seed might break them the
    other way.

    The hypervolume is that of the ranks which the values have on this rung. It therefore depends
    neither on units nor on a few networks that have learned nothing, whose error would stretch the
    scale; and values of a low fidelity need no reference point of their own.

    Args:
        points: Values of the objectives, all minimised, shape `(n, m)`.
        noise: Of every objective, shape `(m,)`.
        count: How many to return.

    Returns:
        Indices into `points`, the best first; ties in the order given.
    """
    order: list[int] = []
    left = np.arange(len(points))
    while len(left) and len(order) < count:
        ahead = clearly_dominates(points[left], noise)
        front = left[~ahead.any(axis=0)]
        gains = contributions(points, front)
        order += [int(i) for i in front[np.argsort(-gains, kind="stable")]]
        left = left[ahead.any(axis=0)]
    return order[:count]


def clearly_dominates(points: FloatArray, noise: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which points (rows) dominate which (columns) even if noise speaks against them.

    The relation is a strict partial order, so that every set has a front.

    Args:
        points: Shape `(n, m)`.
        noise: Shape `(m,)`.

    Returns:
        Shape `(n, n)`.
    """
    first, second = points[:, None, :], points[None, :, :]
    dominates = (first <= second).all(axis=2) & (first < second).any(axis=2)
    clear = (first + noise <= second).all(axis=2)
    return np.asarray(dominates & clear)


def contributions(points: FloatArray, front: npt.NDArray[np.int64]) -> FloatArray:
    """Return the hypervolume that each member of `front` alone adds to it, in ranks.

    Args:
        points: All points of the rung, among which ranks are given, shape `(n, m)`.
        front: Indices of the members.

    Returns:
        Shape `(len(front),)`; 0 for what another member dominates.
    """
    ranks = rankdata(points, axis=0, method="min")[front] / len(points)
    # Behind the last rank by one step, so that the ends of the front count as well.
    reference = np.full(points.shape[1], 1 + 1 / len(points))
    if points.shape[1] == 1:  # moocore takes two objectives or more
        ranks, reference = np.column_stack([ranks, np.zeros(len(ranks))]), np.append(reference, 1)
    gains: FloatArray = moocore.hv_contributions(ranks, ref=reference, ignore_dominated=False)
    return gains
