"""What is searched in the benchmark: errors of a published table beside costs.

The measures are defined once, here. Objectives are the error in percent and costs (the latency of a
device, parameters, multiply-accumulates). Useful are architectures with an error below that of the
reference point and, where there is a limit, within it. The reference point is the largest error
that is useful and the largest cost; the ideal point is the smallest error and a small cost. Both
are scaled to 1 and 0, and a hypervolume is divided by that of the true front. `MEASURES` differ in
the scale of costs and in which cost is the ideal one: that of the cheapest useful architecture, or
that which 1 % of the useful ones fall below; there, what is cheaper counts as costing as much.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from _shared.surrogate_benchmark import SurrogateBenchmark
from _shared.tabular import TabularBenchmark
from nas.core.errors import UnknownNameError
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.results.hypervolume import hypervolume, non_dominated
from nas.search.problem import SearchProblem

IntArray = npt.NDArray[np.int64]

WHOLE_SPACES = Path(__file__).with_name("whole_spaces.json")
"""Bounds and fronts of the settings that are `whole`, as `whole_spaces.py` found them."""

CHEAPEST_PERCENT = 1.0
"""Share of the useful architectures whose costs are not told apart where costs are clipped."""


@dataclass(frozen=True)
class Measure:
    """How a hypervolume sees costs.

    Attributes:
        clipped: Whether the costs of the cheapest `CHEAPEST_PERCENT` are not told apart.
        log: Whether costs are on a logarithmic scale.
    """

    clipped: bool
    log: bool


MEASURES: Mapping[str, Measure] = {
    "clipped": Measure(clipped=True, log=True),
    "unclipped": Measure(clipped=False, log=True),
    "clipped_linear": Measure(clipped=True, log=False),
    "unclipped_linear": Measure(clipped=False, log=False),
}
"""The hypervolumes that are reported, the first one with tests."""


@dataclass(frozen=True)
class Setting:
    """What the tasks of one name have in common.

    Attributes:
        table: That answers.
        dataset: Of the table.
        costs: Of the table, each of which makes a task unless others are chosen.
        worst_error: Error of the reference point in percent. It leaves out 5 % of a table, 4 % of a
            whole space and 16 % of what a limit leaves of it.
        whole: Whether the whole space is searched, of which the table is a sample, answered by
            surrogates.
        feasible: Share of the space that a limit on the first cost leaves; `None` without one.
        evaluations: Most distinct ones of a run.
    """

    table: str
    dataset: str
    costs: tuple[str, ...]
    worst_error: float
    whole: bool = False
    feasible: float | None = None
    evaluations: int = 350


DEVICES = ("raspi4", "pixel3", "gold_6226", "2080ti_32", "fpga")

ACCEL = Setting("accel_nasbench", "imagenet", ("zcu102", "a100"), worst_error=46.0, evaluations=200)

SETTINGS: Mapping[str, Setting] = {
    "cifar10": Setting("nasbench201", "cifar10", DEVICES, 30.0),
    "cifar100": Setting("nasbench201", "cifar100", DEVICES, 57.0),
    "imagenet16": Setting("nasbench201", "imagenet16", DEVICES, 84.0),
    "macro": Setting(
        "nasbench_macro", "cifar10", ("macs_m", "params_m"), worst_error=14.3, evaluations=200
    ),
    "accel": ACCEL,
    "accel_whole": replace(ACCEL, whole=True),
    "accel_tight": replace(ACCEL, whole=True, worst_error=52.0, feasible=0.001),
}
"""What can be searched, by the name under which runs are recorded."""


@dataclass(frozen=True)
class Bounds:
    """What the reference and ideal points are made of; costs have shape `(m - 1,)`.

    Attributes:
        lowest_error: In percent.
        cheapest: Of the useful architectures.
        percentile: Cost that `CHEAPEST_PERCENT` of the useful ones fall below.
        largest: Of all architectures, or the limit.
    """

    lowest_error: float
    cheapest: FloatArray
    percentile: FloatArray
    largest: FloatArray

    @classmethod
    def of(cls, points: FloatArray, worst_error: float) -> Bounds:
        """Return those of error and costs, shape `(n, m)`, of architectures within the limit."""
        useful = points[points[:, 0] < worst_error]
        return cls(
            lowest_error=float(points[:, 0].min()),
            cheapest=useful[:, 1:].min(axis=0),
            percentile=np.percentile(useful[:, 1:], CHEAPEST_PERCENT, axis=0),
            largest=points[:, 1:].max(axis=0),
        )

    def scaled(self, points: FloatArray, worst_error: float, measure: Measure) -> FloatArray:
        """Return objectives scaled so that the ideal point is 0 and the reference point is 1.

        Args:
            points: Error in percent, then costs, shape `(n, m)`.
            worst_error: Error of the reference point, in percent.
            measure: How costs are seen.

        Returns:
            Shape `(n, m)`. A value may be above 1, where the architecture adds no hypervolume.
        """
        least = self.percentile if measure.clipped else self.cheapest
        costs = np.maximum(points[:, 1:], least)
        if measure.log:
            costs, least, largest = np.log(costs), np.log(least), np.log(self.largest)
        else:
            largest = self.largest
        errors = (points[:, :1] - self.lowest_error) / (worst_error - self.lowest_error)
        return np.hstack([errors, (costs - least) / (largest - least)])


@dataclass(frozen=True)
class TableTask:
    """To find the front of one setting's error and of costs.

    Attributes:
        setting: In `SETTINGS`.
        costs: Of the setting's table.
    """

    setting: str
    costs: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the name of the setting; the table checks those of its costs."""
        if self.setting not in SETTINGS:
            raise UnknownNameError("task", self.setting, SETTINGS)
        if self._declared.whole and self._key not in _whole_spaces():
            raise UnknownNameError("cost", self._key, _whole_spaces(), "one with a stored front:")

    @property
    def name(self) -> str:
        """The setting and how many objectives there are: tasks of one name are averaged."""
        return self.setting if len(self.costs) == 1 else f"{self.setting}_{self.objectives}"

    @property
    def objectives(self) -> int:
        """How many objectives there are."""
        return 1 + len(self.costs)

    @property
    def worst_error(self) -> float:
        """Error of the reference point, in percent."""
        return self._declared.worst_error

    @property
    def most_evaluations(self) -> int:
        """Most distinct evaluations of a run."""
        return self._declared.evaluations

    @property
    def _declared(self) -> Setting:
        return SETTINGS[self.setting]

    @property
    def _key(self) -> str:
        return "+".join([self.setting, *self.costs])

    @cached_property
    def benchmark(self) -> TabularBenchmark | SurrogateBenchmark:
        """What answers; each canonical row of a table is an architecture of its own."""
        declared = self._declared
        if not declared.whole:
            return TabularBenchmark.load(declared.table, declared.dataset, self.costs)
        limit = _whole_spaces()[self._key]["limit"]
        return SurrogateBenchmark.load(
            declared.table,
            declared.dataset,
            self.costs,
            constraints=[] if limit is None else [limit],
        )

    @property
    def problem(self) -> SearchProblem:
        """The benchmark's."""
        return self.benchmark.problem

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._declared.feasible is not None

    def row(self, genotype: Genotype) -> int:
        """Return the row of the architecture that any genotype of the space stands for."""
        return self.benchmark.row(self.problem.space.canonical(genotype))

    def trial(self, number: int, genotype: Genotype) -> Trial:
        """Return the trial that evaluating a canonical genotype gives."""
        return self.benchmark.trial(number, genotype)

    def points(self, rows: Sequence[int]) -> FloatArray:
        """Return error in percent, then log costs, of rows, shape `(n, m)`."""
        points = self.benchmark.values(rows).copy()
        points[:, 1:] = np.log(points[:, 1:])
        return points

    @cached_property
    def bounds(self) -> Bounds:
        """Of all architectures."""
        if self._declared.whole:
            return Bounds(
                **{k: np.array(v) for k, v in _whole_spaces()[self._key]["bounds"].items()}
            )
        return Bounds.of(self.benchmark.values(self._every), self.worst_error)

    @cached_property
    def _every(self) -> list[int]:
        """The rows of a table that are architectures of their own."""
        genotypes = self.benchmark.table.genotypes
        own = (self.problem.space.canonicalise(genotypes) == genotypes).all(axis=1)
        return np.flatnonzero(own).tolist()

    def scaled(self, rows: Sequence[int], measure: str = "clipped") -> FloatArray:
        """Return the scaled objectives of rows, shape `(n, m)`; above 1 where the limit is broken.

        Args:
            rows: Of the benchmark.
            measure: In `MEASURES`.
        """
        points = self.benchmark.values(rows)
        return self.bounds.scaled(points, self.worst_error, MEASURES[measure])

    @cached_property
    def _fronts(self) -> dict[str, tuple[IntArray, float]]:
        """Rows of the true front and its hypervolume, by measure."""
        stored = self._declared.whole
        every = np.array(_whole_spaces()[self._key]["front"] if stored else self._every)
        found = {}
        for measure in MEASURES:
            scaled = self.scaled(every, measure)
            best = non_dominated(scaled)
            found[measure] = every[best], hypervolume(scaled[best], np.ones(self.objectives))
        return found

    def front(self, measure: str = "clipped") -> IntArray:
        """Return the rows that make the true front."""
        return self._fronts[measure][0]

    def front_hypervolume(self, measure: str = "clipped") -> float:
        """Return the hypervolume of the true front, in scaled objectives."""
        return self._fronts[measure][1]

    def hypervolume_ratio(self, rows: Sequence[int], measure: str = "clipped") -> float:
        """Return the hypervolume of rows, as a share of that of the true front."""
        found = self.scaled(rows, measure)
        return hypervolume(found, np.ones(self.objectives)) / self.front_hypervolume(measure)

    def front_share(self, rows: Sequence[int]) -> float:
        """Return the share of the front's architectures that are among rows."""
        return len(set(self.front().tolist()) & set(rows)) / len(self.front())

    def cheapest_ratio(self, rows: Sequence[int]) -> float:
        """Return the cost of the cheapest useful architecture among rows, by that of all.

        The geometric mean over costs, each with its own cheapest; without a useful one, the
        largest cost counts.
        """
        points = self.benchmark.values(rows)
        kept = (points[:, 0] < self.worst_error) & (points[:, 1:] <= self.bounds.largest).all(
            axis=1
        )
        found = np.vstack([points[kept, 1:], self.bounds.largest]).min(axis=0)
        return float(np.exp(np.log(found / self.bounds.cheapest).mean()))


@cache
def _whole_spaces() -> dict[str, dict[str, Any]]:
    return json.loads(WHOLE_SPACES.read_text("utf-8")) if WHOLE_SPACES.exists() else {}
