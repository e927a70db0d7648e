"""Accel-NASBench (Ahmad et al., 2024): 5,123 genotypes of a MnasNet-like space, on ImageNet.

Accuracies are those of a shortened training, whose number of epochs is not published with them, so
lower than after a full one. The throughput of an A100 is given as milliseconds an image. Parameters
equal those of the search space's networks; multiply-accumulates are 4 to 14 % above those that
convolutions and linear layers make, which is what a space counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas.core.prediction import FloatArray
from nas.tables import (
    MILLIONS,
    IntArray,
    Table,
    TableCost,
    TableData,
    averaged,
    complete,
    read_csv,
    register,
)

_CSV = Path(__file__).with_name("accel_nasbench.csv.gz")

_CHOICES: Mapping[str, tuple[int, ...]] = {
    "e": (1, 4, 6),
    "k": (3, 5),
    "l": (1, 2, 3, 4),
    "se": (0, 1),
}
"""Values of the genes of one block, in the order of a genotype."""

_VALUES = ("val_top1", "latency_ms_zcu102", "ms_per_image_a100", "params_m", "macs_m")


@register("accel_nasbench")
@dataclass(frozen=True, kw_only=True)
class AccelNasBench(Table):
    """Validation accuracies, latency on a ZCU102, time per image on an A100, counted costs."""

    space: ClassVar[str] = "mnasnet"
    space_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"listed": "accel_nasbench"})
    sample: ClassVar[bool] = True
    source: ClassVar[str] = "Accel-NASBench (Ahmad et al., 2024)"
    tidying: ClassVar[str] = (
        "two rows without a latency on zcu102 left out; of 13 genotypes with two rows, their mean"
    )
    data: ClassVar[Mapping[str, TableData]] = MappingProxyType(
        {"imagenet": TableData((3, 224, 224), 1000, {0: "validation"})}
    )
    costs: ClassVar[Mapping[str, TableCost]] = MappingProxyType(
        {
            "zcu102": TableCost("latency_ms_zcu102", "ms", "measured", latency=True),
            "a100": TableCost("ms_per_image_a100", "ms", "measured"),
            **MILLIONS,
        }
    )

    @cached_property
    def genotypes(self) -> IntArray:
        return _tidied()[0]

    def _accuracy(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        del dataset, epochs
        return _tidied()[1]["val_top1"]

    def _cost(self, name: str) -> npt.NDArray[np.floating]:
        return _tidied()[1][self.costs[name].objective]


@lru_cache(maxsize=1)
def _tidied() -> tuple[IntArray, dict[str, FloatArray]]:
    columns = read_csv(_CSV)
    genes = [
        np.searchsorted(choices, columns[f"block{block}_{gene}"].astype(int))
        for block in range(7)
        for gene, choices in _CHOICES.items()
    ]
    values = {name: np.array([float(text or "nan") for text in columns[name]]) for name in _VALUES}
    return averaged(*complete(np.stack(genes, axis=1), values))
