"""Rankings by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search.ranking import clearly_dominates, contributions, most_promising

EXACT = np.zeros(2)
# Error and latency: A to D are a front, E lies behind B, F behind E.
POINTS = np.array([[1, 9], [2, 4], [5, 3], [9, 1], [3, 5], [4, 6]], float)


def test_fronts_come_one_after_the_other():
    order = most_promising(POINTS, EXACT, 6)
    assert set(order[:4]) == {0, 1, 2, 3}
    assert order[4:] == [4, 5]
    assert most_promising(POINTS, EXACT, 3) == order[:3]
    assert most_promising(np.zeros((0, 2)), EXACT, 3) == []


def test_contributions_are_rectangles_of_ranks():
    # Ranks of errors 1 2 5 6 3 4 and of latencies 6 3 2 1 4 5, of 6; the corner lies at 7.
    areas = np.array([1 * 1, 3 * 3, 1 * 1, 1 * 1])
    assert contributions(POINTS, np.arange(4)) == pytest.approx(areas / 36)
    assert most_promising(POINTS, EXACT, 1) == [1]


def test_neither_units_nor_a_network_that_learned_nothing_matter():
    order = most_promising(POINTS, EXACT, 6)
    changed = np.exp(POINTS) * [1e-3, 1e3]
    assert most_promising(changed, EXACT, 6) == order


def test_a_lead_within_the_noise_is_none():
    # The second is worse in both, by 0.4 in the noisy one.
    points = np.array([[10.0, 2.0], [10.4, 3.0], [10.6, 3.0]])
    noise = np.array([0.5, 0.0])
    assert clearly_dominates(points, EXACT).sum() == 3
    assert clearly_dominates(points, noise).tolist() == [
        [False, False, True],
        [False, False, False],
        [False, False, False],
    ]
    assert not clearly_dominates(points[[0, 0]], noise).any()


def test_every_set_has_a_front_whatever_the_noise():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(60, 3))
    for noise in (0.0, 0.1, 0.5):
        clear = clearly_dominates(points, np.array([noise, 0.0, noise]))
        assert not clear.all(axis=0).any()
        assert (~clear.any(axis=0)).any()
        order = most_promising(points, np.array([noise, 0.0, noise]), 60)
        assert sorted(order) == list(range(60))
        place = np.argsort(order)
        assert (place[:, None] < place)[clear].all()
