from __future__ import annotations

import numpy as np
import pytest
from _shared.table_task import TableTask, scaled

from nas.core.errors import ConfigError
from nas.results.hypervolume import hypervolume

PIXEL2 = TableTask("cifar10", ("pixel2",))


def test_objectives_are_scaled_between_ideal_and_reference() -> None:
    # Useful are the first two, whose 1st percentile lies 1 % of the way from 1 ms to 100 ms.
    points = np.array([[10.0, 1.0], [20.0, 100.0], [40.0, 1000.0], [90.0, 0.1]])
    fastest = 1.99
    span = np.log(1000 / fastest)
    expected = [[0, 0], [0.5, np.log(100 / fastest) / span], [1.5, 1], [4, 0]]
    assert scaled(points, 30.0) == pytest.approx(np.array(expected))


def test_hypervolume_ratio_by_hand() -> None:
    error, latency = PIXEL2.scaled.T
    useful = np.flatnonzero((error < 1) & (latency < 1))
    first, second = (int(row) for row in useful[[0, -1]])
    boxes = [(1 - error[row]) * (1 - latency[row]) for row in (first, second)]
    shared = np.prod(
        [1 - max(error[first], error[second]), 1 - max(latency[first], latency[second])]
    )
    total = PIXEL2.front_hypervolume
    assert PIXEL2.hypervolume_ratio([first]) == pytest.approx(boxes[0] / total)
    both = (boxes[0] + boxes[1] - shared) / total
    assert PIXEL2.hypervolume_ratio([first, second]) == pytest.approx(both)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16"])
def test_the_front_is_that_of_all_rows(dataset: str) -> None:
    task = TableTask(dataset, ("gold_6240",))
    every = range(len(task.points))
    assert len(every) == 15_625
    assert task.hypervolume_ratio(every) == pytest.approx(1)
    assert task.front_share(every) == 1
    assert task.hypervolume_ratio(task.front.tolist()) == pytest.approx(1)
    assert task.hypervolume_ratio([]) == task.front_share([]) == 0
    # Nobody needs an error as large as the reference point's.
    assert (task.scaled[task.front] < 1).all()
    assert 0.94 < (task.scaled[:, 0] < 1).mean() < 0.96


def test_three_objectives() -> None:
    task = TableTask("cifar10", ("gold_6240", "pixel2"))
    assert task.name == "cifar10_3"
    assert task.points.shape == (15_625, 3)
    row = int(task.front[0])
    assert hypervolume(task.scaled[[row]], np.ones(3)) == pytest.approx(
        np.prod(1 - task.scaled[row])
    )
    assert set(PIXEL2.front.tolist()) & set(task.front.tolist())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="imagenet16"):
        TableTask("mnist", ("pixel2",))
    with pytest.raises(ConfigError, match="pixel2"):
        _ = TableTask("cifar10", ("abacus",)).points
