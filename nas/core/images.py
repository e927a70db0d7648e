"""Labelled images, the value that data sets hand to training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Images:
    """Labelled images of one split.

    Attributes:
        pixels: `(n, channels, height, width)`, uint8.
        labels: `(n,)`, int64, in `0 .. num_classes - 1`.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class SearchSplits:
    """The two splits that a search may see.

    Attributes:
        train: What candidates are trained on.
        validation: What drives the search.
        class_names: Name of every class.
    """

    train: Images
    validation: Images
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of one image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A data set with three fixed splits: train, validation and test.

    The test split has a method of its own, which only the finalising of a study calls: what an
    evaluator is given has no way to reach it.

    Attributes:
        split_seed: Of the split; the same seed gives the same three splits for ever.
    """

    split_seed: int = 0

    @abstractmethod
    def search_splits(self) -> SearchSplits:
        """Load the splits that a search may see.

        Raises:
            DataError: The data is missing or not as expected; names the file.
        """

    @abstractmethod
    def test_split(self) -> Images:
        """Load the test split.

        Raises:
            DataError: The data is missing or not as expected; names the file.
        """
