"""`nas device`: what networks can be measured on here, and measuring one."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import DeviceError, ExportError, printable
from nas.core.output import tell

if TYPE_CHECKING:
    from nas.core.measurement import Measurement

_FACTS = (
    "cpu_model",
    "logical_cores",
    "usable_cores",
    "cpu_mhz",
    "governor",
    "load_before",
    "runtime",
    "runtime_version",
    "provider",
    "threads",
    "calibration",
    "energy_source",
)
"""What is printed of a measurement's environment."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions to the parser of `nas`."""
    parser = commands.add_parser("device", help="list devices, or measure a network on one")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="devices, runtimes, providers and precisions here")
    measure = actions.add_parser(
        "measure",
        help="time an ONNX file and measure its memory",
        usage="nas device measure MODEL.onnx [NAME=VALUE ...] [options]",
    )
    measure.add_argument("model", metavar="MODEL.onnx", type=Path)
    measure.add_argument(
        "settings",
        metavar="NAME=VALUE",
        nargs="*",
        default=[],
        help="settings of the device, such as threads=2 runtime=openvino precision=int8",
    )
    measure.add_argument("--device", default="cpu", help="see `nas device list` (default: cpu)")
    for action in (listing, measure):
        action.add_argument("--json", action="store_true", help="print a JSON record")


def device_command(parsed: argparse.Namespace) -> int:
    """Run the action that was chosen; return the exit status."""
    return _list(parsed) if parsed.action == "list" else _measure(parsed)


def _list(parsed: argparse.Namespace) -> int:
    import nas.devices
    from nas.devices import runtimes
    from nas.devices.measuring.environment import describe_host

    summaries = {name: nas.devices.component(name).__doc__ or "" for name in nas.devices.names()}
    devices = [
        {"device": name, "what it is": summary.strip().partition("\n")[0]}
        for name, summary in summaries.items()
    ]
    records = [runtime_record(name) for name in runtimes.names()]
    if parsed.json:
        record = {"host": describe_host(), "devices": devices, "runtimes": records}
        return print_json(record)
    print_table(devices, ("device", "what it is"))
    rows = [
        {
            **each,
            "version": each["version"] or each["install"],
            "providers": ", ".join(each["providers"]) or None,
            "precisions": ", ".join(each["precisions"]),
        }
        for each in records
    ]
    print_table(rows, ("runtime", "version", "providers", "precisions", "takes"))
    return 0


def runtime_record(name: str) -> dict[str, Any]:
    """Return what is known of a registered runtime, installed or not."""
    from nas.devices import runtimes

    cls = runtimes.component(name)
    try:
        version, install = cls.version(), None
    except DeviceError as error:
        version, install = None, str(error)
    return {
        "runtime": name,
        "version": version,
        "install": install,
        "providers": list(cls.providers()) if version else [],
        "precisions": list(cls.precisions),
        "takes": cls.takes,
        "settings": [field.name for field in dataclasses.fields(cls)],
    }


def _measure(parsed: argparse.Namespace) -> int:
    import nas.devices
    from nas.cli.spaces import parse_settings
    from nas.devices.measuring.environment import threads_line
    from nas.network.onnx import image_shape
    from nas.study.checking import component

    node = {"name": parsed.device, **parse_settings(parsed.settings)}
    device = component(nas.devices.registry, node, "device")
    try:
        shape = image_shape(parsed.model)
    except ExportError as error:
        raise DeviceError(f"{parsed.model}: {error}") from error
    if line := threads_line(device):
        tell(line)
    measurement = device.measure(parsed.model, shape)
    if parsed.json:
        return print_json(measurement.to_dict())
    _print_measurement(parsed.model, measurement)
    return 0


def _print_measurement(model: Path, measurement: Measurement) -> None:
    measured: dict[str, Any] = {
        "latency_ms": f"{measurement.latency_ms:.4g} +- {measurement.ci_ms:.2g} "
        f"(10th percentile of {len(measurement.samples_ms)} samples, 95 % interval)",
        "median_ms": measurement.median_ms,
        "p95_ms": measurement.p95_ms,
        "peak_memory_mb": measurement.peak_memory_mb,
        "model_size_mb": measurement.model_size_mb,
        "energy_mj": measurement.energy_mj,
    }
    estimated = {**measurement.columns, "estimated_by": measurement.estimated_by}
    rows = {"model": str(model)} | (estimated if measurement.estimated_by else measured)
    rows |= {name: measurement.environment.get(name) for name in _FACTS}
    kept = [{"what": name, "value": value} for name, value in rows.items() if value is not None]
    print_table(kept, ("what", "value"))


def print_table(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print records in columns; a board has no package that draws tables."""
    rows = [columns, *([printed(record[column]) for column in columns] for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.write("\n")


def printed(value: Any) -> str:
    """Return a value as a cell of a table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def print_json(record: dict[str, Any] | list[dict[str, Any]]) -> int:
    """Print a record, or several; return the exit status."""
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    return 0
