"""Published results of trained networks, one table a file.

A table holds what others have measured of the networks of a search space, of all of them or of a
sample: accuracies after some numbers of epochs, maybe the seconds that these took, latencies on
devices, counted costs. It answers in place of a training and of a device, so that a whole search
takes seconds. The licence notices of the tables stand beside them.
"""

from __future__ import annotations

import csv
import gzip
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas.core.errors import ConfigError, DataError, GenotypeError, UnknownNameError
from nas.core.prediction import FloatArray
from nas.core.registry import Registry
from nas.core.space import Genotype

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TableData:
    """What a table says of a data set.

    Attributes:
        input_shape: `(channels, height, width)` of one image.
        num_classes: Number of classes.
        splits: Images on which the accuracy was measured that a search may see, by the epochs of
            the training, 0 where their number is not known: `validation`; `validation and test` or
            `test` where nothing else is published, which serves to compare searches only.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    splits: Mapping[int, str]


@dataclass(frozen=True)
class TableCost:
    """A column of numbers to be made small, known before a network is trained.

    Attributes:
        objective: Its name as an objective, with the unit: `latency_ms_pixel3`, `params_m`.
        unit: Of the numbers.
        origin: How they came about: `measured`, `estimated` or `counted`.
        latency: Whether it is the latency of one inference in milliseconds, of the device that the
            column is named after.
    """

    objective: str
    unit: str
    origin: str
    latency: bool = False


MILLIONS: Mapping[str, TableCost] = {
    name: TableCost(name, "10^6", "counted") for name in ("params_m", "macs_m")
}
"""Counted costs that many tables have."""


@dataclass(frozen=True, kw_only=True)
class Table(ABC):
    """Published results of networks of a search space, one row a genotype.

    All arrays have shape `(n,)`, in the order of `genotypes`. A genotype occurs once and no value
    is missing: a table that is published otherwise says in `tidying` what was done about it, with
    `averaged` and `complete` for example, and else is refused when it is read.

    Attributes:
        space: Name of the search space.
        space_settings: Settings of the space under which its canonical genotypes are the rows.
        sample: Whether the rows are a part of the space only.
        source: Who published it.
        tidying: What was done about repeated genotypes and missing values; empty if nothing.
        data: The data sets by name.
    """

    space: ClassVar[str]
    space_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    sample: ClassVar[bool] = False
    source: ClassVar[str]
    tidying: ClassVar[str] = ""
    data: ClassVar[Mapping[str, TableData]]

    @property
    @abstractmethod
    def costs(self) -> Mapping[str, TableCost]:
        """The columns of costs by name; a device has one of its latency under its own name."""

    @property
    @abstractmethod
    def genotypes(self) -> IntArray:
        """The networks, shape `(n, g)`: every canonical genotype of the space, or a sample."""

    @abstractmethod
    def _accuracy(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        """Return accuracies in percent on the images of `TableData.splits`."""

    def _seconds(self, dataset: str, epochs: int) -> npt.NDArray[np.floating] | None:
        """Return the seconds that the trainings took, or `None` where they are not published."""
        del dataset, epochs
        return None

    @abstractmethod
    def _cost(self, name: str) -> npt.NDArray[np.floating]:
        """Return a column of `costs`, in its unit."""

    @property
    def devices(self) -> Mapping[str, str]:
        """How the latencies on every device came about, by its name: "measured", "estimated"."""
        return {name: cost.origin for name, cost in self.costs.items() if cost.latency}

    @property
    def published(self) -> Mapping[str, str]:
        """Text on the table as a whole: its source, and what was done to its rows."""
        return {"source": self.source} | ({"rows": self.tidying} if self.tidying else {})

    def error(self, dataset: str, epochs: int) -> FloatArray:
        """Return errors in percent, on the images that `split` names.

        Raises:
            ConfigError: Nothing is published of this data set after these epochs.
            DataError: A value is missing.
        """
        self.split(dataset, epochs)
        name = f"accuracy on {dataset} after {epochs} epochs"
        return 100.0 - self._whole(name, self._accuracy(dataset, epochs))

    def split(self, dataset: str, epochs: int) -> str:
        """Return on which images the errors were measured; raises as `error` does."""
        splits = self.dataset(dataset).splits
        if epochs not in splits:
            expected = f"one that is published: {', '.join(map(str, splits))}"
            raise ConfigError("evaluation.epochs", epochs, expected)
        return splits[epochs]

    def seconds(self, dataset: str, epochs: int) -> FloatArray | None:
        """Return the seconds that the trainings took, `None` where they are not published.

        Raises as `error` does.
        """
        self.split(dataset, epochs)
        seconds = self._seconds(dataset, epochs)
        return None if seconds is None else self._whole(f"seconds on {dataset}", seconds)

    def cost(self, name: str) -> FloatArray:
        """Return a column of `costs`, in its unit.

        Raises:
            ConfigError: The table has no such column.
            DataError: A value is missing.
        """
        if name not in self.costs:
            raise UnknownNameError("cost", name, self.costs, "a cost of the table:")
        return self._whole(name, self._cost(name))

    def latency_ms(self, device: str) -> FloatArray:
        """Return latencies in milliseconds.

        Raises:
            ConfigError: No latency is published of this device.
            DataError: A value is missing.
        """
        if device not in self.devices:
            among = "a device of the table:"
            raise UnknownNameError("device.hardware", device, self.devices, among)
        return self.cost(device)

    def dataset(self, name: str) -> TableData:
        """Return what is known of a data set.

        Raises:
            ConfigError: Nothing is published of it.
        """
        if name not in self.data:
            raise UnknownNameError("data.dataset", name, self.data, "a data set of the table:")
        return self.data[name]

    def rows(self, genotypes: Sequence[Genotype] | IntArray) -> IntArray:
        """Return the rows of genotypes, shape `(m,)`.

        A genotype has its own row, also where others stand for the same network.

        Raises:
            GenotypeError: One of them is not in the table.
            DataError: A genotype has several rows.
        """
        wanted = genotypes.tolist() if isinstance(genotypes, np.ndarray) else genotypes
        try:
            return np.array([self._row_of[tuple(genotype)] for genotype in wanted], np.int64)
        except KeyError as error:
            got = list(error.args[0])
            raise GenotypeError(f"genotype: got {got}, which is no row of the table") from error

    @cached_property
    def _row_of(self) -> dict[Genotype, int]:
        found = {tuple(genotype): row for row, genotype in enumerate(self.genotypes.tolist())}
        if repeated := len(self.genotypes) - len(found):
            raise DataError(
                f"table {type(self).__name__}: got {repeated} rows of genotypes that have a row "
                "already, expected one a genotype; use nas.tables.averaged and say so in tidying"
            )
        return found

    def _whole(self, name: str, values: npt.NDArray[np.floating]) -> FloatArray:
        """Return a column as floats, or refuse it."""
        if values.shape != (len(self.genotypes),):
            expected = f"one value for each of the {len(self.genotypes)} genotypes"
            got = f"{name} of shape {values.shape}"
            raise DataError(f"table {type(self).__name__}: got {got}, expected {expected}")
        if missing := int((~np.isfinite(values)).sum()):
            raise DataError(
                f"table {type(self).__name__}: got {missing} values of {name} that are missing or "
                "infinite, expected numbers; leave their rows out with nas.tables.complete and say "
                "so in tidying"
            )
        return values.astype(float)


def complete(
    genotypes: IntArray, columns: Mapping[str, FloatArray]
) -> tuple[IntArray, dict[str, FloatArray]]:
    """Return the rows in which no value is missing.

    Args:
        genotypes: Shape `(n, g)`.
        columns: Values by name, each of shape `(n,)`.
    """
    kept = np.isfinite(np.stack(list(columns.values()))).all(axis=0)
    return genotypes[kept], {name: values[kept] for name, values in columns.items()}


def averaged(
    genotypes: IntArray, columns: Mapping[str, FloatArray]
) -> tuple[IntArray, dict[str, FloatArray]]:
    """Return one row a genotype, in lexical order: the mean of those that it has.

    Args:
        genotypes: Shape `(n, g)`.
        columns: Values by name, each of shape `(n,)`.
    """
    distinct, group = np.unique(genotypes, axis=0, return_inverse=True)
    counts = np.bincount(group)
    means = {name: np.bincount(group, weights=values) / counts for name, values in columns.items()}
    return distinct, means


def read_csv(path: Path) -> dict[str, npt.NDArray[np.str_]]:
    """Return the columns of a compressed table of comma-separated values, as texts by name."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    return dict(zip(names, np.array(rows).T, strict=True))


registry: Registry[Table] = Registry("table", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = [
    "MILLIONS",
    "Table",
    "TableCost",
    "TableData",
    "averaged",
    "complete",
    "component",
    "get",
    "names",
    "read_csv",
    "register",
    "registry",
]
