"""Memory of a search by a supernet: of the driver over 5,000 networks, and of the workers.

Run `python experiments/supernet/memory.py [--networks N]`. A study of the digits is run by its
command while the resident memory of the driver and the memory that each worker has to itself are
read every few seconds. The supernet has the layers of Once-for-All, so that a copy would be seen.
Rows go to `memory.csv`, the summary is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil

from nas.core.errors import HwnasError
from nas.results import open_study

HERE = Path(__file__).resolve().parent
EVERY_S = 10.0
MB = 1e6

SETTINGS = (
    "name=memory",
    "data=digits",
    "search_space.layout=ofa",
    "evaluation=supernet",
    "evaluation.recipe.epochs=1",
    "evaluation.recipe.train_samples=256",
    "evaluation.random_networks=1",
    "evaluation.calibration_images=16",
    "search=random_search",
    "search.objectives=[error,params_m]",
    "search.adaptive_measurement.measurements=0",
    "finalise.limit=0",
)


def worker_mb(driver: psutil.Process) -> Iterator[float]:
    """Yield the memory that every worker shares with no other process."""
    for process in driver.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::"):
                yield process.memory_full_info().uss / MB


def main() -> None:
    """Run the study and watch its processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=5000)
    networks = parser.parse_args().networks
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nas.cli.main", "search", *SETTINGS, f"runs={folder}"]
        search = subprocess.Popen([*command, f"search.evaluations={networks}"])
        driver = psutil.Process(search.pid)
        while search.poll() is None:
            time.sleep(EVERY_S)
            with contextlib.suppress(psutil.Error, HwnasError):
                trials = len(open_study("memory", folder).trials())
                mb = driver.memory_info().rss / MB
                own = max(worker_mb(driver), default=0.0)
                rows.append({"trials": trials, "driver_mb": mb, "worker_mb": own})
        weights = (Path(folder) / "memory" / "prepared" / "supernet.safetensors").stat().st_size
    table = pd.DataFrame(rows)
    table = table[table["trials"] > 0].round(1)
    table.to_csv(HERE / "memory.csv", index=False)
    tenth = max(len(table) // 10, 1)
    print(f"weights: {weights / MB:.1f} MB")
    for name in ("driver_mb", "worker_mb"):
        first, last = table[name][:tenth].median(), table[name][-tenth:].median()
        print(f"{name}: {first:.0f} MB in the first tenth of the readings, {last:.0f} in the last")


if __name__ == "__main__":
    main()
