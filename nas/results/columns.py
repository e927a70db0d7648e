"""The columns of a study's results: what each number is, and how people read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
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
        quantity: What it is, without its unit.
        unit: Empty for what has none.
        kind: "predicted", "measured", "estimated" (by a tool), "published" or "counted"; empty
            where the quantity says it.
        arithmetic: "fp32" where the value is of the network before it was quantised for the device.
        heading: In the table of a front, without the unit; empty for what it does not show.
        verified: Whether only verified architectures have a value, or those measured in a search.
        in_search: Of these, whether an architecture that the search measured has a value as well.
        on_device: Whether the value depends on the device.
        number_format: In the table of a front.
        optional: Whether the table leaves the column out where no row has a value.
        own: Whether a study of published or estimated numbers may have no value in it.
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


def _of_metric(name: str, unit: str, *, shown: bool) -> Iterator[Column]:
    """Yield the columns of a metric of the task; tables show them where `shown`."""
    metric = name.replace("_", " ")
    for ending, quantity, heading in (
        ("", f"validation {metric} in the search", f"search {metric}"),
        ("_final", f"validation {metric}", f"val. {metric}"),
        ("_final_fp32", f"validation {metric}", f"val. {metric} fp32"),
        ("_test", f"test {metric}", f"test {metric}"),
        ("_test_fp32", f"test {metric}", f"test {metric} fp32"),
        ("_final_mean", f"validation {metric}, mean of seeds", f"val. {metric} mean"),
        ("_final_std", f"validation {metric}, std. of seeds", f"val. {metric} std."),
        ("_test_mean", f"test {metric}, mean of seeds", f"test {metric} mean"),
        ("_test_std", f"test {metric}, std. of seeds", f"test {metric} std."),
        ("_test_refit", f"test {metric} after the refit", f"test {metric} refit"),
    ):
        yield Column(
            name=f"{name}{ending}",
            quantity=quantity,
            unit=unit,
            heading=heading if shown else "",
            arithmetic="fp32" if ending.endswith("fp32") else "",
            verified=ending != "",
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

_ESTIMATED = _latency(
    name="latency_ms_estimated",
    kind="estimated",
    heading="estimated",
    verified=True,
    in_search=True,
    optional=True,
)

_IDENTITY = (
    Column(name="number", quantity="trial"),
    Column(name="arch_id", quantity="architecture", heading="arch_id"),
)

_DECLARED = (
    Column(
        name="seeds",
        quantity="seeds of which mean and standard deviation are",
        heading="seeds",
        verified=True,
        number_format=".0f",
        optional=True,
    ),
    _latency(name="latency_ms_predicted", kind="predicted", heading="predicted", own=True),
    _latency(
        name="latency_ms_predicted_std", quantity="standard deviation of the predicted latency"
    ),
    _MEASURED,
    _interval(_MEASURED),
    _MEASURED_FP32,
    _interval(_MEASURED_FP32),
    _ESTIMATED,
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
    *(
        Column(
            name=f"{name}_kb_{kind}",
            quantity=quantity,
            unit="KiB",
            kind=kind,
            heading=heading,
            on_device=True,
            verified=kind == "estimated",
            optional=True,
        )
        for name, quantity in (("sram", "SRAM"), ("flash", "flash"))
        for kind, heading in (("predicted", ""), ("estimated", quantity))
    ),
    Column(name="model_size_mb_predicted", quantity="model size", unit="MB", kind="predicted"),
    Column(name="model_size_mb", quantity="model size", unit="MB", verified=True),
    _measured(name="energy_mj_measured", quantity="energy", unit="mJ"),
    Column(name="parent", quantity="trial whose weights the training began with"),
    Column(name="params_m", quantity="parameters", unit="M", heading="params"),
    Column(name="macs_m", quantity="multiply-accumulates", unit="M", heading="MACs"),
    Column(name="fidelity", quantity="share of the full training"),
    Column(name="seconds", quantity="training time", unit="s"),
    Column(name="ended_s", quantity="time since the search began", unit="s"),
)
"""The columns that do not depend on the task; a table shows them in this order, after metrics.

Latency and metrics are of what the device runs, quantised or not, unless `arithmetic` is "fp32".
"""

MEASURED = tuple(column.name for column in _DECLARED if column.in_search)
"""Columns in which architectures that were measured during the search have values as well."""


def columns_of(record: Mapping[str, Any], names: Iterable[str] = ()) -> dict[str, Column]:
    """Return the columns that have a fixed meaning, those of the task's metrics among them.

    Further `names` stand for themselves where they have none. `record` is that of the study.
    Tables show the metrics that are objectives or limited, and the `error`.
    """
    of_metrics = [
        column
        for name, unit in metric_units(record).items()
        for column in _of_metric(name, unit, shown=name == "error" or name in record["columns"])
    ]
    declared = {column.name: column for column in (*_IDENTITY, *of_metrics, *_DECLARED)}
    others = [other for other in names if other not in declared]
    return declared | {other: Column(name=other, quantity=other) for other in others}


def verified_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of verified architectures.

    Facts of a search have other names, but for `MEASURED`.
    """
    return tuple(name for name, column in columns_of(record).items() if column.verified)


def metric_units(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the unit of every metric of a study's task, by its name."""
    return {str(metric["name"]): str(metric["unit"]) for metric in record["task"]["metrics"]}


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
