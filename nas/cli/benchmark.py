"""`nas benchmark`: how good a part of the platform is, measured on this machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPACES: dict[str, dict[str, Any]] = {
    "mobilenet": {"input_shape": (3, 64, 64), "num_classes": 10},
    "vit": {"input_shape": (3, 64, 64), "num_classes": 10},
    "darts": {"input_shape": (3, 32, 32), "num_classes": 10},
}
"""The spaces that are compared, with settings for which a network takes up to some milliseconds."""


def predictor(names: Sequence[str], device: str, out: Path) -> int:
    """Measure how accurate the latency predictor is; write tables and figures to `out`.

    Args:
        names: Of spaces in `SPACES`; empty for all.
        device: Name of the device.
        out: Folder; what was measured is kept in it, and not measured again.
    """
    import latency_predictors
    import nas.devices
    import search_spaces
    from latency_predictors.accuracy.evaluation import AccuracySettings, evaluate, measure
    from nas.cli import accuracy_report
    from nas.core.files import write_json_atomically
    from nas.devices.measuring.environment import describe_host
    from nas.devices.store import MeasurementStore

    chosen_spaces = _known(names)
    settings = AccuracySettings()
    chosen = latency_predictors.get(
        "auto", samples=settings.samples, seconds_per_sample=settings.seconds
    )
    out.mkdir(parents=True, exist_ok=True)
    measured = {
        name: measure(
            search_spaces.get(name, **SPACES[name]),
            nas.devices.get(device),
            chosen,
            MeasurementStore(out / "measurements"),
            settings,
            _Progress(name),
        )
        for name in chosen_spaces
    }
    for name, of_space in measured.items():
        _Progress(name)("fitting the learning curve")
        report = evaluate(of_space)
        report.networks.to_csv(out / f"{name}_networks.csv", index=False, float_format="%.6g")
        report.curve.to_csv(out / f"{name}_curve.csv", index=False, float_format="%.6g")
        record = {"space": name, "settings": SPACES[name], "host": describe_host()}
        write_json_atomically(out / f"{name}.json", record | report.summary)
    summaries = [
        json.loads(path.read_text("utf-8"))
        for name in SPACES
        if (path := out / f"{name}.json").is_file()
    ]
    accuracy_report.print_tables(summaries, out)
    accuracy_report.draw(summaries, out)
    return 0


def memory(names: Sequence[str], device: str, out: Path) -> int:
    """Measure how accurate predicted peak memory is; write a table to `out`.

    Args:
        names: Of spaces in `SPACES`; empty for all.
        device: Name of the device.
        out: Folder; what was measured is kept in it, and not measured again.
    """
    import nas.devices
    import search_spaces
    from latency_predictors.accuracy.peak_memory import MemorySettings, compare
    from nas.cli import accuracy_report
    from nas.cli.console import console
    from nas.core.files import write_json_atomically
    from nas.devices.measuring.environment import describe_host
    from nas.devices.store import MeasurementStore

    summaries = []
    for name in _known(names):
        space, store = (
            search_spaces.get(name, **SPACES[name]),
            MeasurementStore(out / "measurements"),
        )
        found = compare(space, nas.devices.get(device), store, MemorySettings(), _Progress(name))
        summaries.append({"space": name, "settings": SPACES[name], "host": describe_host()} | found)
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomically(out / "results.json", {s["space"]: s for s in summaries})
    console().print(accuracy_report.memory(summaries), markup=False, soft_wrap=True)
    return 0


def _known(names: Sequence[str]) -> Sequence[str]:
    """Return the spaces to compare, all where none is named."""
    from nas.core.errors import UnknownNameError

    for name in names:
        if name not in SPACES:
            raise UnknownNameError("space", name, SPACES)
    return names or list(SPACES)


class _Progress:
    """Tells what is being done, with the time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        sys.stderr.write(f"{self._name}, {time.monotonic() - self._start:5.0f} s: {line}\n")
