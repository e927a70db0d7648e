"""A device of a published table: latencies that others have measured or calculated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from nas import tables
from nas.core.errors import DeviceError
from nas.core.measurement import Device
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.devices import register
from nas.tables import Table


@register("table")
@dataclass(frozen=True, kw_only=True)
class TableDevice(Device):
    """A device of a published table; it measures nothing.

    Attributes:
        table: Name of the table.
        hardware: Name of the device in the table.
    """

    table: str = "nasbench201"
    hardware: str = "pixel3"

    def __post_init__(self) -> None:
        self._table.latency_ms(self.hardware)  # which refuses a device that it does not have

    def published_ms(self, genotypes: Sequence[Genotype]) -> FloatArray:
        """Return the published latencies of genotypes, in milliseconds, shape `(n,)`.

        Raises:
            GenotypeError: A genotype is not in the table.
        """
        return self._table.latency_ms(self.hardware)[self._table.rows(genotypes)]

    @property
    def published(self) -> Mapping[str, str]:
        kind = self._table.devices[self.hardware]
        return {
            "latency_ms": f"published latency on {self.hardware}, {kind}",
            **self._table.published,
        }

    def identity(self) -> dict[str, Any]:
        return {"table": self.table, "hardware": self.hardware, "unit": "ms", **self.published}

    def prepare(self, *arguments: Any, **named: Any) -> NoReturn:
        del arguments, named
        raise DeviceError(
            f"device table: {self.hardware} is a column of the published table {self.table}, on "
            "which nothing can be measured; choose a device that is there, such as cpu"
        )

    measure_files = outputs = prepare

    @cached_property
    def _table(self) -> Table:
        return tables.get(self.table)
