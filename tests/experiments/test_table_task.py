from __future__ import annotations

import numpy as np
import pytest
from _shared.table_task import MEASURES, SETTINGS, Bounds, TableTask

from nas.core.errors import ConfigError
from nas.results.hypervolume import hypervolume

PIXEL2 = TableTask("cifar10", ("pixel2",))
EVERY = range(15_625)


def test_objectives_are_scaled_between_ideal_and_reference() -> None:
    # Useful are the first two, whose 1st percentile lies 1 % of the way from 1 ms to 100 ms.
    points = np.array([[10.0, 1.0], [20.0, 100.0], [40.0, 1000.0], [90.0, 0.1]])
    bounds = Bounds.of(points, 30.0)
    errors = [0, 0.5, 1.5, 4]
    fastest = 1.99
    span = np.log(1000 / fastest)
    for measure, costs in (
        ("clipped", [0, np.log(100 / fastest) / span, 1, 0]),
        ("unclipped", [0, 2 / 3, 1, 0]),
        ("clipped_linear", [0, (100 - fastest) / (1000 - fastest), 1, 0]),
        ("unclipped_linear", [0, 99 / 999, 1, 0]),
    ):
        scaled = bounds.scaled(points, 30.0, MEASURES[measure])
        assert scaled == pytest.approx(np.stack([errors, costs], axis=1)), measure


def test_hypervolume_ratio_by_hand() -> None:
    error, latency = PIXEL2.scaled(EVERY).T
    useful = np.flatnonzero((error < 1) & (latency < 1))
    first, second = (int(row) for row in useful[[0, -1]])
    boxes = [(1 - error[row]) * (1 - latency[row]) for row in (first, second)]
    shared = np.prod(
        [1 - max(error[first], error[second]), 1 - max(latency[first], latency[second])]
    )
    total = PIXEL2.front_hypervolume()
    assert PIXEL2.hypervolume_ratio([first]) == pytest.approx(boxes[0] / total)
    both = (boxes[0] + boxes[1] - shared) / total
    assert PIXEL2.hypervolume_ratio([first, second]) == pytest.approx(both)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16"])
def test_the_front_is_that_of_all_rows(dataset: str) -> None:
    task = TableTask(dataset, ("gold_6240",))
    for measure in MEASURES:
        assert task.hypervolume_ratio(EVERY, measure) == pytest.approx(1)
    assert task.front_share(EVERY) == task.cheapest_ratio(EVERY) == 1
    assert task.hypervolume_ratio(task.front().tolist()) == pytest.approx(1)
    assert task.hypervolume_ratio([]) == task.front_share([]) == 0
    # Nobody needs an error as large as the reference point's.
    assert (task.scaled(task.front()) < 1).all()
    assert 0.94 < (task.scaled(EVERY)[:, 0] < 1).mean() < 0.96


def test_three_objectives() -> None:
    task = TableTask("cifar10", ("gold_6240", "pixel2"))
    assert task.name == "cifar10_3"
    assert task.points(EVERY).shape == (15_625, 3)
    row = int(task.front()[0])
    assert hypervolume(task.scaled([row]), np.ones(3)) == pytest.approx(
        np.prod(1 - task.scaled([row])[0])
    )
    assert set(PIXEL2.front().tolist()) & set(task.front().tolist())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="imagenet16"):
        TableTask("mnist", ("pixel2",))
    with pytest.raises(ConfigError, match="pixel2"):
        _ = TableTask("cifar10", ("abacus",)).problem


def test_a_measure_that_does_not_clip_sees_the_cheap_end() -> None:
    cost = PIXEL2.benchmark.values(EVERY)[:, 1]
    cheap = [row for row in PIXEL2.front().tolist() if cost[row] < PIXEL2.bounds.percentile[0]]
    rest = [row for row in PIXEL2.front().tolist() if row not in cheap]
    assert PIXEL2.hypervolume_ratio(PIXEL2.front().tolist(), "unclipped") < 1
    assert PIXEL2.cheapest_ratio(rest) > 1
    dear = int(cost.argmax())
    assert PIXEL2.cheapest_ratio([dear]) == pytest.approx(cost[dear] / PIXEL2.bounds.cheapest[0])


@pytest.mark.parametrize(
    ("setting", "cost"),
    [(name, cost) for name, s in SETTINGS.items() if s.table != "nasbench201" for cost in s.costs],
)
def test_other_tables(setting: str, cost: str) -> None:
    task = TableTask(setting, (cost,))
    space = task.problem.space
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(50)]
    rows = [task.row(genotype) for genotype in drawn]
    for measure in MEASURES:
        front = task._fronts[measure][0].tolist()
        assert task.hypervolume_ratio(front, measure) == pytest.approx(1)
        assert 0 <= task.hypervolume_ratio(rows, measure) < 1
        assert task.hypervolume_ratio([*front, *rows], measure) == pytest.approx(1)
    assert task.cheapest_ratio(front) == pytest.approx(1)
    known = task.problem.known(drawn[:3])
    for genotype, said in zip(drawn[:3], known, strict=True):
        trial = task.trial(0, genotype)
        [name] = said
        assert trial.values[name] == pytest.approx(said[name])
        assert task.points([task.row(genotype)])[0, 1] == pytest.approx(np.log(said[name]))


def test_a_tight_limit_leaves_a_thousandth_of_the_space() -> None:
    task = TableTask("accel_tight", ("zcu102",))
    assert task.limited
    [limit] = task.problem.constraints
    drawn = task.problem.space.samples(50_000, np.random.default_rng(1))
    costs = task.benchmark.values_of(drawn)[:, 1]
    assert 0.0006 < (costs <= limit.limit).mean() < 0.0014
    beyond = task.row(tuple(drawn[costs.argmax()].tolist()))
    assert task.hypervolume_ratio([beyond]) == 0
    assert task.cheapest_ratio([beyond]) == pytest.approx(limit.limit / task.bounds.cheapest[0])
