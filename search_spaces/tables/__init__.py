"""Published tables of trained networks; their licence notices stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

NASBENCH201 = Path(__file__).with_name("nasbench201.npz")


@lru_cache(maxsize=1)
def load_nasbench201() -> Mapping[str, npt.NDArray[Any]]:
    """Return the arrays of NAS-Bench-201, one row a cell, in the benchmark's own numbering.

    Keys (`n` = 15,625):
        `ops` `(n, 6)`: genotypes, as `search_spaces.nasbench201` has them; `arch_str` `(n,)`.
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
