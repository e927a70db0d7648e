from __future__ import annotations

import numpy as np

from nas.search.ranking import constrained_ranks, crowding_distances


def test_fronts_come_in_turn_and_broken_limits_last():
    values = np.array([[1, 4], [2, 2], [4, 1], [3, 3], [5, 5], [0, 0], [0, 1], [9, 9]], float)
    excess = np.array([0, 0, 0, 0, 0, 0.2, 0.1, 0.2])
    assert constrained_ranks(values, excess).tolist() == [0, 0, 0, 1, 2, 4, 3, 4]


def test_where_nothing_keeps_the_limits_the_least_broken_is_first():
    assert constrained_ranks(np.zeros((3, 2)), np.array([0.3, 0.1, 0.2])).tolist() == [2, 0, 1]


def test_the_ends_of_a_front_are_never_crowded():
    values = np.array([[0, 10], [1, 6], [2, 5], [10, 0], [11, 11]], float)
    distances = crowding_distances(values, np.array([0, 0, 0, 0, 1]))
    assert np.isinf(distances[[0, 3, 4]]).all()
    # Both neighbours' distance, relative to the range, in every objective, and their mean.
    assert distances[1] / distances[2] == (2 / 10 + 5 / 10) / (9 / 10 + 6 / 10)
