"""NAS-Bench-Macro (Su et al., CVPR 2021): 6,561 sequences of eight layers, trained on CIFAR-10.

The benchmark trained each of the 3,969 different networks three times and copied the results to the
genotypes that stand for the same one. Accuracies are the mean of three runs, each the best of its
epochs on test images, so the figures serve to compare searches only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nas.tables import MILLIONS, IntArray, Table, TableCost, TableData, read_csv, register

_CSV = Path(__file__).with_name("nasbench_macro.csv.gz")


@register("nasbench_macro")
@dataclass(frozen=True, kw_only=True)
class NasBenchMacro(Table):
    """Test accuracies after 50 epochs, with parameters and multiply-accumulates."""

    space: ClassVar[str] = "nasbench_macro"
    source: ClassVar[str] = "NAS-Bench-Macro (Su et al., CVPR 2021)"
    data: ClassVar[Mapping[str, TableData]] = MappingProxyType(
        {"cifar10": TableData((3, 32, 32), 10, {50: "test"})}
    )
    costs: ClassVar[Mapping[str, TableCost]] = MILLIONS

    @cached_property
    def genotypes(self) -> IntArray:
        return np.array([list(map(int, arch)) for arch in _table_columns()["arch"]])

    def _accuracy(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        del dataset, epochs
        return _table_columns()["mean_acc"].astype(float)

    def _cost(self, name: str) -> npt.NDArray[np.floating]:
        return _table_columns()[name.removesuffix("_m")].astype(float) / 1e6


@lru_cache(maxsize=1)
def _table_columns() -> Mapping[str, npt.NDArray[np.str_]]:
    return read_csv(_CSV)
