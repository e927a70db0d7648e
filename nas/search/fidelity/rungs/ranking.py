"""Which of the architectures on a rung are worth more training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pymoo.indicators.hv import HV
from scipy.stats import rankdata

from nas.core.prediction import FloatArray


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
    volume = HV(ref_point=np.full(points.shape[1], 1 + 1 / len(points)))
    whole = volume(ranks)
    return np.array([whole - volume(np.delete(ranks, i, axis=0)) for i in range(len(front))])
