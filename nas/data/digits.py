"""The 8x8 handwritten digits that scikit-learn carries: nothing to fetch, seconds to train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.core.dataset import Examples, SearchSplits
from nas.data import StratifiedDataset, register
from nas.tasks.classification import Classification

CLASS_NAMES = tuple("0123456789")


@register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(StratifiedDataset):
    """1,797 grey images `(1, 8, 8)` of ten digits, split 60/20/20 by class unless told otherwise.

    The test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
    1998), as `sklearn.datasets.load_digits` has it. Its grey values 0..16 are spread over 0..255.
    """

    def search_splits(self) -> SearchSplits:
        splits = self._splits()
        return SearchSplits(splits["train"], splits["validation"])

    def test_split(self) -> Examples:
        return self._splits()["test"]

    def _splits(self) -> dict[str, Examples]:
        from sklearn.datasets import load_digits

        values, classes = load_digits(return_X_y=True)
        pixels = np.round(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        labels = classes.astype(np.int64)
        every = Examples(pixels, labels, Classification(class_names=CLASS_NAMES))
        splits = self.three_way({"train": labels}, CLASS_NAMES, "digits")
        return {name: every.take(at) for name, (_, at) in splits.items()}
