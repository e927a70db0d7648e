"""A data set of a published table: its shape and classes, without images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas import tables
from nas.core.dataset import Dataset, Examples, SearchSplits
from nas.core.errors import DataError
from nas.data import register
from nas.tasks.classification import Classification


@register("published")
@dataclass(frozen=True, kw_only=True)
class Published(Dataset):
    """What networks of a table were trained on, so that a space can be built for it.

    Attributes:
        table: Name of the table.
        dataset: Of the table.
    """

    table: str = "nasbench201"
    dataset: str = "cifar10"

    def __post_init__(self) -> None:
        """Check that the table has the data set."""
        tables.get(self.table).dataset(self.dataset)

    def search_splits(self) -> SearchSplits:
        # Two splits of the right shape that hold no image; classes have numbers.
        data = tables.get(self.table).dataset(self.dataset)
        task = Classification(class_names=tuple(map(str, range(data.num_classes))))
        empty = Examples(np.zeros((0, *data.input_shape), np.uint8), np.zeros(0, np.int64), task)
        return SearchSplits(empty, empty)

    def test_split(self) -> Examples:
        raise DataError(f"data published: {self.dataset} of {self.table} has results, no images")
