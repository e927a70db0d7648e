"""How accurate the latency predictors are, measured on this machine.

    python experiments/latency_predictors/run.py             # mobilenet, vit and darts
    python experiments/latency_predictors/run.py vit --out mine

What was measured is kept in the folder of the results, and not measured again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import accuracy_report
from _shared.accuracy import SPACES, Progress, arguments
from evaluation import AccuracySettings, evaluate, measure

import latency_predictors
import nas.devices
import search_spaces
from nas.core.errors import HwnasError
from nas.core.files import write_json_atomically
from nas.devices.measuring.environment import describe_host
from nas.devices.store import MeasurementStore

HERE = Path(__file__).resolve().parent


def run(
    names: Sequence[str], device: str, out: Path, settings: AccuracySettings | None = None
) -> None:
    """Measure how accurate the latency predictor is; write tables and figures to `out`.

    Args:
        names: Of spaces in `SPACES`.
        device: Name of the device.
        out: Folder; what was measured is kept in it, and not measured again.
        settings: How much is measured.
    """
    settings = settings or AccuracySettings()
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
            Progress(name),
        )
        for name in names
    }
    for name, of_space in measured.items():
        Progress(name)("fitting the learning curve")
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


if __name__ == "__main__":
    try:
        given = arguments(__doc__, HERE)
        run(given.spaces, given.device, given.out)
    except HwnasError as error:
        sys.exit(f"error: {error}")
