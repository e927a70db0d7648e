"""Published results of trained networks, one table a file.

A table holds what others have measured of every network of a search space: accuracies after some
numbers of epochs, the seconds that these took, latencies on devices. It answers in place of a
training and of a device, so that a whole search takes seconds. The licence notices of the tables
stand beside them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nas.core.errors import ConfigError, GenotypeError, UnknownNameError
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
            expected = f"one that is published: {', '.join(map(str, splits))}"
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
            among = "a device of the table:"
            raise UnknownNameError("device.hardware", device, self.devices, among)
        return self._latency_ms(device).astype(float)

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

        A genotype has its own row, also where others stand for the same network: what is answered
        is one published training, never a mean of several.

        Raises:
            GenotypeError: One of them is not in the table.
        """
        wanted = genotypes.tolist() if isinstance(genotypes, np.ndarray) else genotypes
        try:
            return np.array([self._row_of[tuple(genotype)] for genotype in wanted], np.int64)
        except KeyError as error:
            got = list(error.args[0])
            raise GenotypeError(f"genotype: got {got}, which is no row of the table") from error

    @cached_property
    def _row_of(self) -> dict[Genotype, int]:
        return {tuple(genotype): row for row, genotype in enumerate(self.genotypes.tolist())}


registry: Registry[Table] = Registry("table", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["Table", "TableData", "component", "get", "names", "register", "registry"]
