"""Ranks of trials that compete on several objectives and under constraints."""

from __future__ import annotations

import numpy as np
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

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
        for rank, front in enumerate(NonDominatedSorting().do(values[kept])):
            ranks[np.flatnonzero(kept)[front]] = rank
            behind = rank + 1
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
