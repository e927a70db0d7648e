"""The columns of a study's results: what each number is, and how people read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

CONFIDENCE_INTERVAL = "_ci"
"""Ending of the column that holds the half width of another one's 95 % confidence interval."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column holds.

    Attributes:
        name: Of the column.
        quantity: What it is, without its unit; `{metric}` stands for the metric of the task.
        unit: Empty for what has none.
        kind: "predicted", "measured", "published" or "counted"; empty where the quantity says it.
        arithmetic: "fp32" where the value is of the network before it was quantised for the device.
        heading: In the table of a front, without the unit; empty for what it does not show.
        verified: Whether only verified architectures have a value, or those measured in a search.
        in_search: Of these, whether an architecture that the search measured has a value as well.
        on_device: Whether the value depends on the device.
        number_format: In the table of a front.
        optional: Whether the table leaves the column out where no row has a value.
        own: Whether a study of published numbers may have no value in it.
    """

    name: str
    quantity: str
    unit: str = ""
    kind: str = ""
    arithmetic: str = ""
    heading: str = ""
    verified: bool = False
    in_search: bool = False
    on_device: bool = False
    number_format: str = "#.3g"
    optional: bool = False
    own: bool = False

    def label(self, device: str = "") -> str:
        """Return the text for an axis: quantity, split, arithmetic, device and unit."""
        kind = f"{self.kind} " if self.kind else ""
        arithmetic = f" in {self.arithmetic}" if self.arithmetic else ""
        place = f" on {device}" if device and self.on_device else ""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{kind}{self.quantity}{arithmetic}{place}{unit}"

    def table_heading(self) -> str:
        """Return the short text above the column of a table; empty where none shows it."""
        return f"{self.heading} {self.unit}".strip() if self.heading else ""


def _error(name: str, quantity: str, heading: str, *, fp32: bool = False) -> Column:
    """Declare a column of the task's metric."""
    return Column(
        name=name,
        quantity=quantity,
        unit="%",
        heading=f"{heading} fp32" if fp32 else heading,
        arithmetic="fp32" if fp32 else "",
        verified=name != "error",
        number_format=".2f",
        optional=True,
    )


_latency = partial(Column, quantity="latency", unit="ms", on_device=True)
_memory = partial(Column, quantity="peak memory", unit="MB", on_device=True)
_measured = partial(Column, kind="measured", verified=True, on_device=True)


def _interval(of: Column) -> Column:
    quantity = f"half width of the 95 % interval of the {of.kind} {of.quantity}"
    return dataclasses.replace(
        of, name=f"{of.name}{CONFIDENCE_INTERVAL}", quantity=quantity, kind="", heading=""
    )


_MEASURED = _latency(
    name="latency_ms_measured",
    kind="measured",
    heading="measured",
    verified=True,
    in_search=True,
    own=True,
)
_MEASURED_FP32 = _latency(
    name="latency_ms_measured_fp32",
    kind="measured",
    heading="measured fp32",
    arithmetic="fp32",
    verified=True,
    optional=True,
)

_DECLARED = (
    Column(name="number", quantity="trial"),
    Column(name="arch_id", quantity="architecture", heading="arch_id"),
    _error("error", "validation {metric} in the search", "search {metric}"),
    _error("error_final", "validation {metric}", "val. {metric}"),
    _error("error_final_fp32", "validation {metric}", "val. {metric}", fp32=True),
    _error("error_test", "test {metric}", "test {metric}"),
    _error("error_test_fp32", "test {metric}", "test {metric}", fp32=True),
    _error("error_test_refit", "test {metric} after the refit", "test {metric} refit"),
    _latency(name="latency_ms_predicted", kind="predicted", heading="predicted", own=True),
    _MEASURED,
    _interval(_MEASURED),
    _MEASURED_FP32,
    _interval(_MEASURED_FP32),
    _latency(name="latency_ms_published", kind="published", heading="published", optional=True),
    Column(
        name="latency_deviation_percent",
        quantity="measured above predicted latency",
        unit="%",
        heading="deviation",
        number_format="+.1f",
        own=True,
    ),
    _measured(name="latency_ms_median", quantity="median latency", unit="ms"),
    _measured(name="latency_ms_p95", quantity="95th percentile of latency", unit="ms"),
    Column(name="counted_memory_mb", quantity="memory", unit="MB", kind="counted"),
    _memory(name="peak_memory_mb_predicted", kind="predicted"),
    _memory(
        name="peak_memory_mb_measured", kind="measured", heading="measured", verified=True, own=True
    ),
    Column(name="model_size_mb", quantity="model size", unit="MB", verified=True),
    _measured(name="energy_mj_measured", quantity="energy", unit="mJ"),
    Column(name="params_m", quantity="parameters", unit="M", heading="params"),
    Column(name="macs_m", quantity="multiply-accumulates", unit="M", heading="MACs"),
)
"""The columns that have a fixed meaning; a table shows them in this order.

Latency and errors are of what the device runs, quantised or not, unless `arithmetic` is "fp32".
"""

VERIFIED = tuple(column.name for column in _DECLARED if column.verified)
"""Columns of verified architectures; facts of a search have other names, but for `MEASURED`."""

MEASURED = tuple(column.name for column in _DECLARED if column.in_search)
"""Columns in which architectures that were measured during the search have values as well."""


def columns_of(record: Mapping[str, Any], names: Iterable[str] = ()) -> dict[str, Column]:
    """Return the columns that have a fixed meaning, those of errors by the metric of the task.

    Further `names` stand for themselves where they have none. `record` is that of the study.
    """
    name, unit = task_metric(record)
    declared = {
        column.name: dataclasses.replace(
            column,
            quantity=column.quantity.format(metric=name),
            heading=column.heading.format(metric=name),
            unit=unit if "{metric}" in column.quantity else column.unit,
        )
        for column in _DECLARED
    }
    others = [other for other in names if other not in declared]
    return declared | {other: Column(name=other, quantity=other) for other in others}


def task_metric(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name and the unit of the metric that a study minimises."""
    metric = record["task"]["metrics"][0]
    return str(metric["name"]), str(metric["unit"])


def device_label(device: Mapping[str, Any] | str | None) -> str:
    """Return a device as text, such as `cpu, 1 thread`; empty where it is not known.

    A table's device is called as the table calls it; a board or a Ray node has its command or its
    name in brackets: `remote (ssh pi@board), 4 threads`.
    """
    if not isinstance(device, Mapping):
        return str(device or "")
    if "hardware" in device:
        return str(device["hardware"])
    name = str(device.get("name", "device"))
    if place := device.get("command") or device.get("node"):
        name = f"{name} ({place})"
    threads = device.get("threads")
    if threads is None:
        return name
    return f"{name}, {threads} thread" if threads == 1 else f"{name}, {threads} threads"
