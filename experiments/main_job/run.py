"""The main job, timed: data set and machine in, verified front and exported network out.

Run `python experiments/main_job/run.py [quickstart] [fashion_mnist] [--seeds N]` on a machine that
does nothing else. For each experiment it writes the figure and the front of its first seed, and the
`results.json` of all, into a folder beside this file.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

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


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Run an experiment in a folder, by its commands; return what it shows."""
    runs = str(folder / f"seed{seed}")
    search_s = timed("search", f"experiment={name}", f"runs={runs}", f"seed={seed}")
    export_s = timed("export", name, "--runs", runs, "--out", f"{runs}/out")
    study = results.open_study(name, runs)
    if seed == 0:
        for file in ("pareto.csv", "pareto.png"):
            shutil.copy(study.path / file, HERE / name / file)
    return figures(study, search_s, export_s)


def main() -> None:
    """Run the experiments that the command line names, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, help="keeps the studies; else they are deleted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.experiments:
            (HERE / name).mkdir(exist_ok=True)
            records = []
            for seed in range(arguments.seeds):
                records.append(run(name, seed, arguments.runs or Path(temporary)))
                write_json_atomically(HERE / name / "results.json", {"seeds": records})
            for key in ("search_s", "verified_front_points", "most_accurate_accuracy_test_percent"):
                values = np.array([record[key] for record in records], float)
                print(f"{name}, {key}: {values.tolist()}, mean {values.mean():.2f}")


if __name__ == "__main__":
    main()
