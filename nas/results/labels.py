"""How columns are called where people read them: quantity, unit, split, device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LABELS = {
    "number": "trial",
    "error": "validation error in the search (%)",
    "error_final": "validation error (%)",
    "error_final_fp32": "validation error in fp32 (%)",
    "error_test": "test error (%)",
    "error_test_fp32": "test error in fp32 (%)",
    "error_test_refit": "test error after the refit (%)",
    "latency_ms_predicted": "predicted latency{device} (ms)",
    "latency_ms_measured": "measured latency{device} (ms)",
    "latency_ms_measured_fp32": "measured latency in fp32{device} (ms)",
    "latency_ms_published": "published latency{device} (ms)",
    "counted_memory_mb": "counted memory (MB)",
    "peak_memory_mb_predicted": "predicted peak memory{device} (MB)",
    "peak_memory_mb_measured": "measured peak memory{device} (MB)",
    "model_size_mb": "model size (MB)",
    "energy_mj_measured": "measured energy{device} (mJ)",
    "params_m": "parameters (millions)",
    "macs_m": "multiply-accumulates (millions)",
}


def device_label(device: Mapping[str, Any] | str | None) -> str:
    """Return a device as text, such as `cpu, 1 thread`; empty where it is not known.

    A table's device is called as the table calls it; one that stands elsewhere by the device that
    it holds and its place: `cpu, 1 thread at pi:7000`.
    """
    if not isinstance(device, Mapping):
        return str(device or "")
    if isinstance(device.get("target"), Mapping):
        place = device.get("address") if device.get("node") is None else device["node"]
        return f"{device_label(device['target'])} at {place}"
    if "hardware" in device:
        return str(device["hardware"])
    name = str(device.get("name", "device"))
    threads = device.get("threads")
    if threads is None:
        return name
    return f"{name}, {threads} thread" if threads == 1 else f"{name}, {threads} threads"


def unit(column: str) -> str:
    """Return the unit of a column; empty where it has none or is not known."""
    return _LABELS.get(column, "").partition("(")[2].rstrip(")")


def label(column: str, device: str = "") -> str:
    """Return the text for an axis or a heading: quantity, split, device and unit of a column."""
    place = f" on {device}" if device else ""
    return _LABELS.get(column, column).format(device=place)
