"""Verified fronts after equal times of search: by trainings, by shared weights, by gradients.

Run `python experiments/supernet/fronts.py [--minutes M] [--seeds N] [--contenders NAME ...]` on a
machine that does nothing else. Every contender is a study of `experiment=fashion_mnist` whose
search ends after so many minutes, in which a supernet's training counts; the calibration of the
latency predictor, which all need, does not. Up to four members of each front are then trained by
one recipe and measured. Rows go to `fronts.csv`, and only those that it lacks are computed; the
table, with the hypervolume of the verified fronts in errors and logarithms of latency, to
`fronts.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

from nas.results import open_study
from nas.results.hypervolume import hypervolume

HERE = Path(__file__).resolve().parent
KEY = ["contender", "minutes", "seed"]
OBJECTIVES = ["error_final", "latency_ms_measured"]
MANY = 100_000
"""Evaluations: time ends the search."""

WORST = 15.0
"""Error of the reference point, in percent."""

SUPERNET = ("evaluation=supernet", "evaluation.recipe={epochs: 6, train_samples: 20000}")
CONTENDERS: Mapping[str, tuple[str, ...]] = {
    "trainings, guided": (),
    "trainings, random": ("search=random_search",),
    "supernet, guided": SUPERNET,
    "supernet, NSGA-II": (*SUPERNET, "search=nsga2"),
    "supernet and trainings, guided": (
        *SUPERNET,
        "fidelity=mo_asha",
        "fidelity.rungs=[0.05,1]",
        "fidelity.eta=8",
        "evaluation.stand_alone={epochs: 4, train_samples: 6000}",
    ),
    "gradients": ("search=gradient", "search.algorithm.targets=6"),
}


def searched(contender: str, minutes: float, seed: int, runs: Path) -> dict[str, Any]:
    """Run the study of a contender; return a row."""
    name = "".join(c if c.isalnum() else "_" for c in f"{contender}_{minutes:g}_{seed}")
    command = [
        sys.executable,
        "-m",
        "nas.cli.main",
        "search",
        "experiment=fashion_mnist",
        f"name={name}",
        f"runs={runs}",
        f"seed={seed}",
        f"search.evaluations={MANY}",
        "finalise.limit=4",
        *CONTENDERS[contender],
    ]
    prepared_s = 0.0
    if "evaluation=supernet" in command:
        # Trains the supernet and judges one candidate, so that its seconds are known.
        subprocess.run([*command, "search.stop.worker_s=0.001", "finalise.limit=0"], check=True)
        record = json.loads((runs / name / "prepared" / "supernet.json").read_text())
        prepared_s = record["seconds"]
    limit_s = 60 * minutes - prepared_s
    subprocess.run([*command, f"search.stop.wall_clock_s={limit_s:.0f}"], check=True)
    study = open_study(name, runs)
    trials, front = study.trials(), study.pareto(objectives=OBJECTIVES)
    return {
        **dict(zip(KEY, (contender, minutes, seed), strict=True)),
        "supernet_s": round(prepared_s),
        "candidates": int((trials["status"] == "complete").sum()),
        "front": front[OBJECTIVES].to_numpy().round(4).tolist(),
    }


def main() -> None:
    """Run the missing studies and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--runs", type=Path, default=Path("runs/fronts"))
    arguments = parser.parse_args()
    file = HERE / "fronts.csv"
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=KEY)
    for seed in range(arguments.seeds):
        for contender in arguments.contenders:
            key = (contender, arguments.minutes, seed)
            if key not in set(known[KEY].itertuples(index=False, name=None)):
                started = time.monotonic()
                row = searched(*key, arguments.runs)
                row["whole_s"] = round(time.monotonic() - started)
                known = pd.concat([known, pd.DataFrame([row])], ignore_index=True)
                known.to_csv(file, index=False)
                known = pd.read_csv(file)
    known["front"] = known["front"].map(json.loads)
    latencies = [ms for front in known["front"] for _, ms in front]
    slowest, fastest = math.log10(1.1 * max(latencies)), math.log10(min(latencies))
    known["hypervolume"] = [
        hypervolume([[e, math.log10(ms)] for e, ms in front], [WORST, slowest])
        / (WORST * (slowest - fastest))
        for front in known["front"]
    ]
    known["best"] = [min(error for error, _ in front) for front in known["front"]]
    groups = known.groupby(["contender", "minutes"], sort=False)
    table = pd.DataFrame(
        {
            "seeds": groups["seed"].count(),
            "supernet, s": groups["supernet_s"].mean().round(),
            "candidates": groups["candidates"].mean().round(),
            "hypervolume": groups["hypervolume"].mean().map("{:.3f}".format),
            "deviation": groups["hypervolume"].std().map("{:.3f}".format),
            "least error, validation %": groups["best"].mean().map("{:.2f}".format),
        }
    )
    (HERE / "fronts.md").write_text(markdown(table.reset_index()) + "\n")
    print(table)


if __name__ == "__main__":
    main()
