from __future__ import annotations

import numpy as np
import pytest
from pymoo.indicators.hv import HV

from nas.results.hypervolume import hypervolume, hypervolume_order, knee, non_dominated


def test_hypervolume_by_hand() -> None:
    assert hypervolume([[1, 2], [2, 1]], [3, 3]) == pytest.approx(3)
    assert hypervolume([[1, 2], [2, 1], [2, 2]], [3, 3]) == pytest.approx(3)
    assert hypervolume([[0, 0, 0]], [2, 3, 4]) == pytest.approx(24)
    # Two boxes of 2 that share 1.
    assert hypervolume([[0, 1, 1], [1, 0, 1]], [2, 2, 2]) == pytest.approx(3)
    assert hypervolume([[0.25], [0.5]], [1]) == pytest.approx(0.75)


def test_points_beyond_the_reference_and_no_points_add_nothing() -> None:
    assert hypervolume([], [1, 1]) == 0
    assert hypervolume([[1, 0], [0, 1], [5, -3], [np.inf, 0]], [1, 1]) == 0
    assert hypervolume([[0.5, 0.5], [2, -9]], [1, 1]) == pytest.approx(0.25)


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_equals_pymoo(m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.round(rng.uniform(0, 1.2, (40, m)), 2)  # rounded: ties and duplicates occur
    reference = np.ones(m)
    expected = HV(ref_point=reference)(points)
    assert hypervolume(points, reference) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("points", [[[np.nan, 1]], [1, 2], [[1, 2, 3]], [[-np.inf, 0]]])
def test_what_has_no_hypervolume_is_refused(points: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        hypervolume(points, [1, 1])  # type: ignore[arg-type]


def test_non_dominated_keeps_equal_points() -> None:
    points = [[1, 2], [1, 2], [1, 3], [2, 1], [0, 9], [0, 10], [3, 3]]
    assert non_dominated(points).tolist() == [True, True, False, True, True, False, False]
    with pytest.raises(ValueError, match="NaN"):
        non_dominated([[np.nan, 1.0]])


def test_non_dominated_is_the_definition() -> None:
    points = np.round(np.random.default_rng(0).uniform(size=(150, 3)), 1)
    no_worse = (points[None] <= points[:, None]).all(axis=2)
    better = (points[None] < points[:, None]).any(axis=2)
    assert (non_dominated(points) == ~(no_worse & better).any(axis=1)).all()


@pytest.mark.parametrize("m", [2, 3])
def test_order_is_greedy(m: int) -> None:
    points = np.random.default_rng(m).uniform(size=(25, m))
    reference = np.full(m, 0.9)
    order = hypervolume_order(points, reference)
    assert sorted(order) == np.flatnonzero(non_dominated(points)).tolist()
    assert hypervolume_order(points, reference, most=3) == order[:3]
    for k in range(len(order)):
        gains = [hypervolume(points[[*order[:k], i]], reference) for i in order[k:]]
        assert gains[0] == pytest.approx(max(gains))


def test_knee() -> None:
    assert knee([[0, 10], [1, 2], [5, 1], [10, 0]]) == 1
    # Units do not matter.
    assert knee([[0, 10e6], [1, 2e6], [5, 1e6], [10, 0]]) == 1
    assert knee([[3, 3]]) == 0
    assert knee([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0.2, 0.2, 0.2]]) == 3
    with pytest.raises(ValueError, match="none"):
        knee(np.empty((0, 2)))
