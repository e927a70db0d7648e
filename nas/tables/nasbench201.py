"""NAS-Bench-201 (Dong and Yang, ICLR 2020): 15,625 cells, trained on three data sets.

All cells are rows, also those that stand for one network: the benchmark has trained each of them
on its own, with two or three seeds, whose mean an accuracy is.
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

from nas.tables import IntArray, Table, TableCost, TableData, register

NASBENCH201 = Path(__file__).with_name("nasbench201.npz")

ESTIMATED = ("eyeriss", "fpga")
"""Devices whose latencies HW-NAS-Bench calculated; the others were timed."""

_SHORT, _FULL = 12, 200


@lru_cache(maxsize=1)
def load_nasbench201() -> Mapping[str, npt.NDArray[Any]]:
    """Return the arrays of NAS-Bench-201, one row a cell, in the benchmark's own numbering.

    Keys (`n` = 15,625):
        `ops` `(n, 6)`: genotypes of the search space `nasbench201`; `arch_str` `(n,)`.
        `acc12_SET_valid`, `acc12_SET_test` `(n,)`: accuracy in percent after the schedule of 12
            epochs, mean over runs; `SET` is `cifar10`, `cifar100` or `imagenet16`.
        `acc200_cifar10_valid`, `acc200_cifar100_valtest`, `acc200_imagenet16_valtest` `(n,)`: the
            same after 200 epochs, on validation or on validation and test images together; with
            `_runs` `(n, 3)`: the single runs, NaN where there was none.
        `train200_s_SET` `(n,)`: seconds that the 200 epochs took.
        `params_m`, `macs_m_cifar10`, `macs_m_imagenet16` `(n,)`: millions.
        `lat_ms` `(n, 27)`: measured latency on `lat_devices`; `subset_lat_ms` `(1999, 18)` on
            `subset_devices` for the cells `subset_index`.
    """
    with np.load(NASBENCH201, allow_pickle=False) as arrays:
        table = {name: arrays[name] for name in arrays.files}
    for array in table.values():
        array.flags.writeable = False
    return MappingProxyType(table)


@register("nasbench201")
@dataclass(frozen=True, kw_only=True)
class NasBench201(Table):
    """The benchmark's accuracies and seconds, with latencies from HW-NAS-Bench and HELP.

    Accuracies after 12 epochs are of a schedule of 12 epochs, not of the first part of the one of
    200, and were measured on validation images. After 200 epochs CIFAR-10 has validation images;
    of the other two only validation and test images together are published here. The seconds of
    12 epochs are the share 12/200 of those of 200.
    """

    space: ClassVar[str] = "nasbench201"
    space_settings: ClassVar[Mapping[str, Any]] = MappingProxyType({"merge_equal": False})
    source: ClassVar[str] = (
        "NAS-Bench-201 (Dong and Yang, ICLR 2020), NATS-Bench (Dong et al., TPAMI 2021), "
        "HW-NAS-Bench (Li et al., ICLR 2021), HELP (Lee et al., NeurIPS 2021)"
    )
    data: ClassVar[Mapping[str, TableData]] = MappingProxyType(
        {
            "cifar10": TableData((3, 32, 32), 10, {_SHORT: "validation", _FULL: "validation"}),
            "cifar100": TableData(
                (3, 32, 32), 100, {_SHORT: "validation", _FULL: "validation and test"}
            ),
            "imagenet16": TableData(
                (3, 16, 16), 120, {_SHORT: "validation", _FULL: "validation and test"}
            ),
        }
    )

    @cached_property
    def costs(self) -> Mapping[str, TableCost]:
        return {
            name: TableCost(
                objective=f"latency_ms_{name}",
                unit="ms",
                origin="estimated" if name in ESTIMATED else "measured",
                latency=True,
            )
            for name in load_nasbench201()["lat_devices"].tolist()
        }

    @cached_property
    def genotypes(self) -> IntArray:
        return load_nasbench201()["ops"].astype(np.int64)

    def _accuracy(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        split = "valid" if self.data[dataset].splits[epochs] == "validation" else "valtest"
        return load_nasbench201()[f"acc{epochs}_{dataset}_{split}"]

    def _seconds(self, dataset: str, epochs: int) -> npt.NDArray[np.floating]:
        return load_nasbench201()[f"train200_s_{dataset}"] * (epochs / _FULL)

    def _cost(self, name: str) -> npt.NDArray[np.floating]:
        columns = load_nasbench201()
        return columns["lat_ms"][:, columns["lat_devices"].tolist().index(name)]
