"""What `guided` finds on NAS-Bench-201 where it has learned a proxy's scores before, and without.

Run `python experiments/proxies/search.py [--seeds N]` after `run.py`. The proxy is AZ-NAS, its
scores are those on random images of the cells in `scores.csv`. Errors are published ones on
CIFAR-10, beside the latencies of two devices. Rows go to `search.csv`; what is there is not run
again. `search.md` gets hypervolumes as a share of that of the true front, unclipped, as means over
devices and seeds, and the mean difference with its 95 % interval.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from run import SCORES
from scipy.stats import norm

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown
from _shared.table_task import TableTask

from nas import tables
from nas.search import algorithms
from nas.search.problem import Scored

HERE = Path(__file__).resolve().parent
DEVICES = ("pixel3", "fpga")
EVALUATIONS = (15, 25, 50, 100)
PROXIES = ("", "az_nas")
KEY = ["device", "proxy", "seed"]


def scored(task: TableTask, proxy: str) -> Scored:
    """Return the cells that a proxy has scored."""
    rows = pd.read_csv(SCORES)
    rows = rows[(rows["images"] == "random") & (rows["seed"] == 0) & (rows["proxy"] == proxy)]
    table = rows.pivot_table(index="cell", columns="term", values="score").dropna()
    cells = np.asarray(tables.get("nasbench201").genotypes)[table.index]
    return Scored(task.problem.space.canonicalise(cells), table.to_numpy())


def searched(device: str, proxy: str, seed: int) -> dict[str, object]:
    """Search and return a row."""
    task = TableTask("cifar10", (device,))
    problem = task.problem
    if proxy:
        problem = replace(problem, scored=scored(task, proxy))
    algorithm = algorithms.get("guided").start(problem, seed)
    rows: list[int] = []
    found: dict[str, object] = dict(zip(KEY, (device, proxy, seed), strict=True))
    for number in range(max(EVALUATIONS)):
        [genotype] = algorithm.ask(1)
        algorithm.tell([task.trial(number, genotype)])
        rows.append(task.row(genotype))
        if len(rows) in EVALUATIONS:
            found[str(len(rows))] = task.hypervolume_ratio(rows, "unclipped")
    return found


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    file = HERE / "search.csv"
    known = pd.DataFrame([], columns=KEY)
    if file.is_file():
        known = pd.read_csv(file, keep_default_na=False)
    for seed in range(parser.parse_args().seeds):
        for device in DEVICES:
            for proxy in PROXIES:
                if (device, proxy, seed) not in set(known[KEY].itertuples(index=False, name=None)):
                    row = pd.DataFrame([searched(device, proxy, seed)])
                    known = pd.concat([known, row], ignore_index=True) if len(known) else row
                    known.to_csv(file, index=False)
    table = []
    for number in map(str, EVALUATIONS):
        without, own = (
            known[known["proxy"] == proxy].sort_values(["device", "seed"])[number].to_numpy(float)
            for proxy in PROXIES
        )
        gain = own - without
        half = norm.ppf(0.975) * gain.std(ddof=1) / np.sqrt(len(gain))
        table.append(
            {
                "evaluations": number,
                "without": f"{without.mean():.4f}",
                "with AZ-NAS": f"{own.mean():.4f}",
                "difference": f"{gain.mean():+.4f} ± {half:.4f}",
            }
        )
    text = markdown(pd.DataFrame(table))
    (HERE / "search.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
