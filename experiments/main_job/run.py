"""The main job, timed: data set and machine in, verified front and exported network out.

Run `python experiments/main_job/run.py [quickstart] [fashion_mnist]` on a machine that does
nothing else. For each experiment it writes the figure, the front and `results.json` into a folder
beside this file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nas import results
from nas.core.files import write_json_atomically
from nas.devices.measuring.environment import describe_host
from nas.results.study import StudyResults

EXPERIMENTS = ("quickstart", "fashion_mnist")
HERE = Path(__file__).resolve().parent


def timed(*arguments: str) -> float:
    """Run the `nas` command and return the seconds that it took."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "nas.cli.main", *arguments], check=True)
    return time.monotonic() - started


def figures(study: StudyResults, search_s: float, export_s: float) -> dict[str, Any]:
    """Return what the study shows."""
    trials, front = study.trials(), study.pareto()
    verified = trials[trials["verified"]]
    best = front.sort_values("error_final").iloc[0]
    deviation = verified["latency_ms_measured"] / verified["latency_ms_predicted"] - 1
    return {
        "search_s": round(search_s),
        "export_s": round(export_s),
        "trials_complete": int((trials["status"] == "complete").sum()),
        "trials_failed": int((trials["status"] == "failed").sum()),
        "networks_verified": len(verified),
        "verified_front_points": len(front),
        "most_accurate_error_validation_percent": float(best["error_final"]),
        "most_accurate_accuracy_test_percent": 100 - float(best["error_test"]),
        "most_accurate_latency_ms_measured": float(best["latency_ms_measured"]),
        "front_latency_ms_measured": front["latency_ms_measured"].tolist(),
        "front_error_validation_percent": front["error_final"].tolist(),
        "front_accuracy_test_percent": (100 - front["error_test"]).tolist(),
        "latency_deviation_percent_median_abs": 100 * float(deviation.abs().median()),
        "latency_deviation_percent_max_abs": 100 * float(deviation.abs().max()),
        "versions": study.record["versions"],
        "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
    }


def main() -> None:
    """Run the experiments that the command line names, or all."""
    for name in sys.argv[1:] or EXPERIMENTS:
        with tempfile.TemporaryDirectory() as folder:
            runs = f"{folder}/runs"
            search_s = timed("search", f"experiment={name}", f"runs={runs}")
            export_s = timed("export", name, "--runs", runs, "--out", f"{folder}/out")
            study = results.open_study(name, runs)
            record = figures(study, search_s, export_s)
            target = HERE / name
            target.mkdir(exist_ok=True)
            for file in ("pareto.csv", "pareto.png"):
                shutil.copy(study.path / file, target / file)
        write_json_atomically(target / "results.json", record)
        print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
