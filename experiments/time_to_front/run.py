"""How soon a search has a front, on real trainings: algorithms at equal wall-clock.

Run `python experiments/time_to_front/run.py` after `make data`, on a machine that does nothing
else. Studies stay in `runs/` beside this file, and one that has ended is not run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nas import results
from nas.core.files import write_json_atomically
from nas.devices.measuring.environment import describe_host
from nas.results.hypervolume import hypervolume
from nas.study.record import versions

HERE = Path(__file__).resolve().parent
RUNS = HERE / "runs"
ALGORITHMS = ("guided", "nsga2", "random_search")
BASELINE = "random_search"
SEEDS = (0, 1, 2)
SECONDS = 240
"""Wall-clock of a search: its calibration comes before, and is the same for all."""

SETTINGS = (
    "experiment=fashion_mnist",
    "search.mode=async",
    "search.evaluations=100000",
    f"search.stop.wall_clock_s={SECONDS}",
    "evaluation.recipe.epochs=2",
    "evaluation.recipe.train_samples=4000",
    "finalise.limit=0",
)


def search(algorithm: str, seed: int) -> str:
    """Run a study to its end and return its name."""
    name = f"{algorithm}-{seed}"
    overrides = [f"name={name}", f"search={algorithm}", f"seed={seed}", f"runs={RUNS}"]
    command = [sys.executable, "-m", "nas.cli.main", "search", *SETTINGS, *overrides]
    subprocess.run(command, check=True)
    return name


def progress(name: str) -> pd.DataFrame:
    """Return the hypervolume after every complete trial of a study, relative to the whole box."""
    study = results.open_study(name, RUNS)
    point = study.record["reference_point"]
    columns = [study.record["columns"][objective] for objective in study.record["objectives"]]
    reference = np.array([point[objective] for objective in study.record["objectives"]])
    trials = study.trials()
    trials = trials[trials["status"] == "complete"].sort_values("ended_s")
    values = trials[columns].to_numpy(float)
    volumes = [hypervolume(values[: i + 1], reference) for i in range(len(values))]
    return pd.DataFrame(
        {"ended_s": trials["ended_s"].to_numpy(), "hypervolume": volumes / reference.prod()}
    )


def reached_s(of: pd.DataFrame, volume: float) -> float | None:
    """Return when a search had a hypervolume; `None` if it never had."""
    enough = of[of["hypervolume"] >= volume]
    return None if enough.empty else float(enough["ended_s"].iloc[0])


def main() -> None:
    """Run all searches, algorithms in turn, then compare them."""
    curves = []
    for seed in SEEDS:
        for algorithm in ALGORITHMS:
            curve = progress(search(algorithm, seed))
            curves.append(curve.assign(algorithm=algorithm, seed=seed))
    table = pd.concat(curves)
    table.to_csv(HERE / "progress.csv", index=False, float_format="%.6g")
    by = dict(iter(table.groupby(["algorithm", "seed"])))
    record = {
        "seconds": SECONDS,
        "runs": [
            {
                "algorithm": algorithm,
                "seed": seed,
                "trials": len(curve),
                "hypervolume": float(curve["hypervolume"].iloc[-1]),
                "baseline_reached_s": reached_s(
                    curve, float(by[BASELINE, seed]["hypervolume"].iloc[-1])
                ),
            }
            for (algorithm, seed), curve in by.items()
        ],
        "versions": versions(),
        "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
    }
    write_json_atomically(HERE / "results.json", record)
    print(json.dumps(record["runs"], indent=2))
    draw(table)


def draw(table: pd.DataFrame) -> None:
    """Draw hypervolume against time, one line a search: `time_to_front.png`."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for colour, (algorithm, of) in enumerate(table.groupby("algorithm")):
        for seed, curve in of.groupby("seed"):
            label = str(algorithm) if seed == SEEDS[0] else None
            axes.step(
                curve["ended_s"],
                curve["hypervolume"],
                where="post",
                color=f"C{colour}",
                label=label,
            )
    axes.set(xlabel="seconds of search", ylabel="hypervolume, share of the reference box")
    axes.legend()
    figure.savefig(HERE / "time_to_front.png", dpi=110)


if __name__ == "__main__":
    main()
