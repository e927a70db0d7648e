"""What is searched in the benchmark: errors of a published table beside latencies of devices.

The measure is defined once, here. Objectives are the error in percent and the logarithm of every
device's latency. The reference point is `WORST_ERROR` and the largest latency of the table; the
ideal point is the smallest error and the latency that 1 % of the useful architectures, those with
an error below the reference point's, fall below. What is faster counts as being that fast. Both
are scaled to 1 and 0, and a hypervolume is divided by that of the table's own front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from _shared.tabular import TabularBenchmark
from nas.core.errors import UnknownNameError
from nas.core.prediction import FloatArray
from nas.results.hypervolume import hypervolume, non_dominated

IntArray = npt.NDArray[np.int64]

WORST_ERROR = {"cifar10": 30.0, "cifar100": 57.0, "imagenet16": 84.0}
"""Error of the reference point in percent, by data set of NAS-Bench-201.

30 % on CIFAR-10 leaves out 5 % of the cells; so do the other two.
"""

FASTEST_PERCENT = 1.0
"""Share of the useful architectures whose latencies are not told apart."""


def scaled(points: FloatArray, worst_error: float) -> FloatArray:
    """Return objectives scaled so that the ideal point is 0 and the reference point is 1.

    Args:
        points: Error in percent, then latencies in ms, of all architectures, shape `(n, m)`.
        worst_error: Error of the reference point, in percent.

    Returns:
        Shape `(n, m)`. An error may be above 1, where the architecture adds no hypervolume.
    """
    errors, latencies = points[:, :1], points[:, 1:]
    useful = latencies[errors[:, 0] < worst_error]
    fastest = np.percentile(useful, FASTEST_PERCENT, axis=0)
    values = np.hstack([errors, np.log(np.maximum(latencies, fastest))])
    ideal = np.hstack([errors.min(axis=0), np.log(fastest)])
    reference = np.hstack([worst_error, np.log(latencies.max(axis=0))])
    ranges: FloatArray = (values - ideal) / (reference - ideal)
    return ranges


@dataclass(frozen=True)
class TableTask:
    """To find the front of one data set's error and of latencies.

    Attributes:
        dataset: Of NAS-Bench-201.
        devices: Of the table.
    """

    dataset: str
    devices: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the name of the data set; the table checks those of its devices."""
        if self.dataset not in WORST_ERROR:
            raise UnknownNameError("data set", self.dataset, WORST_ERROR)

    @property
    def name(self) -> str:
        """The data set and how many objectives there are: tasks of one name are averaged."""
        return self.dataset if len(self.devices) == 1 else f"{self.dataset}_{self.objectives}"

    @property
    def objectives(self) -> int:
        """How many objectives there are."""
        return 1 + len(self.devices)

    @cached_property
    def table(self) -> TabularBenchmark:
        """The table as a problem; each of its rows is an architecture of its own."""
        return TabularBenchmark.load("nasbench201", self.dataset, self.devices)

    @cached_property
    def points(self) -> FloatArray:
        """Error in percent, then log latencies, of every row of the table, shape `(n, m)`."""
        points = self.table.points()
        points[:, 1:] = np.log(points[:, 1:])
        return points

    @cached_property
    def scaled(self) -> FloatArray:
        """The scaled objectives of every row of the table; see `scaled`."""
        return scaled(self.table.points(), WORST_ERROR[self.dataset])

    @cached_property
    def front(self) -> IntArray:
        """The rows of the table that make its front."""
        return np.flatnonzero(non_dominated(self.scaled))

    @cached_property
    def front_hypervolume(self) -> float:
        """Hypervolume of the table's front, in scaled objectives."""
        return hypervolume(self.scaled[self.front], np.ones(self.objectives))

    def hypervolume_ratio(self, rows: Sequence[int]) -> float:
        """Return the hypervolume of rows of the table, as a share of that of its front."""
        found = self.scaled[list(rows)]
        return hypervolume(found, np.ones(self.objectives)) / self.front_hypervolume

    def front_share(self, rows: Sequence[int]) -> float:
        """Return the share of the front's architectures that are among rows of the table."""
        return len(set(self.front.tolist()) & set(rows)) / len(self.front)
