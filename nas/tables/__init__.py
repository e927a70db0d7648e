"""Published results of trained networks, one table a file.

A table holds what others have measured of every network of a search space: accuracies after some
numbers of epochs, the seconds that these took, latencies on devices. It answers in place of a
training and of a device, so that a whole search takes seconds. The licence notices of the tables
stand beside them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nas.core.errors import ConfigError, GenotypeError
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
            the training: `validation`, or `validation and test` where nothing else is published.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    splits: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Table(ABC):
    """Published results of all networks of a search space, one row a network.

    All arrays have shape `(n,)`, in the order of `genotypes`.

    Attributes:
        space: Name of the search space.
        source: Who published it.
        data: The data sets by name.
    """

    space: ClassVar[str]
    source: ClassVar[str]
    data: ClassVar[Mapping[str, TableData]]

    @property
    @abstractmethod
    def devices(self) -> Mapping[str, str]:
        """How the latencies on every device came about, by its name: "measured", "estimated"."""

    @property
    @abstractmethod
    def genotypes(self) -> IntArray:
        """The networks, shape `(n, g)`; all that the search space can propose are among them."""

    @abstractmethod
    def _accuracy(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        """Return accuracies in percent on the images of `TableData.splits`."""

    @abstractmethod
    def _seconds(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        """Return the seconds that the trainings took."""

    @abstractmethod
    def _latency_ms(self, device: str) -> npt.NDArray[np.floating]:
        """Return latencies in milliseconds."""

    def error(self, dataset: str, epochs: int) -> FloatArray:
        """Return errors in percent, on the images that `split` names.

        Raises:
            ConfigError: Nothing is published of this data set after these epochs.
        """
        self.split(dataset, epochs)
        return 100.0 - self._accuracy(dataset, epochs).astype(float)

    def split(self, dataset: str, epochs: int) -> str:
        """Return on which images the errors were measured; raises as `error` does."""
        splits = self.dataset(dataset).splits
        if epochs not in splits:
            expected = f"one that is published: {_listed(splits)}"
            raise ConfigError("evaluation.epochs", epochs, expected)
        return splits[epochs]

    def seconds(self, dataset: str, epochs: int) -> FloatArray:
        """Return the seconds that the trainings took; raises as `error` does."""
        self.split(dataset, epochs)
        return self._seconds(dataset, epochs).astype(float)

    def latency_ms(self, device: str) -> FloatArray:
        """Return latencies in milliseconds.

        Raises:
            ConfigError: Nothing is published of this device.
        """
        if device not in self.devices:
            expected = f"a device of the table: {_listed(self.devices)}"
            raise ConfigError("device.hardware", device, expected)
        return self._latency_ms(device).astype(float)

    def dataset(self, name: str) -> TableData:
        """Return what is known of a data set.

        Raises:
            ConfigError: Nothing is published of it.
        """
        if name not in self.data:
            expected = f"a data set of the table: {_listed(self.data)}"
            raise ConfigError("data.dataset", name, expected)
        return self.data[name]

    def rows(self, genotypes: Sequence[Genotype] | IntArray) -> IntArray:
        """Return the rows of genotypes, shape `(m,)`.

        A genotype has its own row, also where others stand for the same network: what is answered
        is one published training, never a mean of several.

        Raises:
            GenotypeError: One of them is not in the table.
        """
        base, codes, order = self._index
        genes = self.genotypes.shape[1]
        wanted = np.asarray(genotypes, np.int64)
        if not len(wanted):
            return np.zeros(0, np.int64)
        if wanted.shape != (len(wanted), genes):
            raise _missing(wanted[0])
        places = np.searchsorted(codes, wanted @ _powers(base, genes))
        rows: IntArray = order[places.clip(max=len(codes) - 1)]
        strange = (self.genotypes[rows] != wanted).any(axis=1)
        if strange.any():
            raise _missing(wanted[strange][0])
        return rows

    @cached_property
    def _index(self) -> tuple[int, IntArray, IntArray]:
        """One more than the largest choice, sorted codes of the genotypes, and their rows."""
        base = int(self.genotypes.max()) + 1
        codes = self.genotypes @ _powers(base, self.genotypes.shape[1])
        order = np.argsort(codes)
        return base, codes[order], order


def _missing(genotype: IntArray) -> GenotypeError:
    return GenotypeError(f"genotype: got {genotype.tolist()}, which is no row of the table")


def _powers(base: int, count: int) -> IntArray:
    powers: IntArray = np.array([base**i for i in reversed(range(count))], np.int64)
    return powers


def _listed(names: Collection[object]) -> str:
    return ", ".join(map(str, names))


registry: Registry[Table] = Registry("table", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["Table", "TableData", "component", "get", "names", "register", "registry"]
