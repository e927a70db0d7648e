"""What it saves to train architectures in part first, on the published trainings of NAS-Bench-201.

Run `python experiments/multi_fidelity/run.py` for the figures of the README, with `--tuning` for
those by which the settings below were chosen. What has been run before is not run again. It writes
`held_out.csv` or `tuning.csv`, and from it `results.json` and `multi_fidelity.png`.

A partial training is the benchmark's training of 12 epochs, which costs 12/200 of the full one. It
has a schedule of its own, so a full training does not go on from it and costs 1 beside it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.table_task import TableTask

from nas.core.files import write_json_atomically
from nas.core.trial import RunSegment, Trial
from nas.evaluation.tabular import PublishedJob, SimulatedEvaluator
from nas.results.hypervolume import non_dominated
from nas.search import algorithms, fidelity
from nas.search.loop import SearchLoop
from nas.search.schedule import Schedule
from nas.search.stopping import Stopping
from nas.study.record import versions

HERE = Path(__file__).resolve().parent
PARTIAL = 12 / 200
RULES: dict[str, dict[str, Any]] = {
    "full": {},
    "mo_asha": {"rungs": (PARTIAL, 1.0), "eta": 10.0},
    "mo_hyperband": {"rungs": (PARTIAL, 1.0), "eta": 10.0},
}
ALGORITHMS = ("guided", "random_search")
TRAININGS = {"full": 100, "mo_asha": 50, "mo_hyperband": 50}
"""Budget of a run, in full trainings: a rule must reach by half of it what full training does."""

COSTS = np.sort(np.round([*np.arange(5, 100, 2.5), 100 / 3, 100], 4))
"""Full trainings spent at which the hypervolume is noted."""

FRONTS = 4
"""Fronts of partial trainings that are trained fully where all are known."""

SEEDS = 10
DATASET = "cifar10"
DEVICES = ("raspi4", "pixel3", "gold_6226", "2080ti_32", "fpga")
TUNING_SEEDS = 3
TUNING_DATASETS = ("cifar10", "cifar100")
TUNING_DEVICES = ("pixel2", "titan_rtx_32", "silver_4114", "eyeriss")
RUN = ["algorithm", "rule", "dataset", "device", "seed"]


@dataclass
class Memory:
    """A ledger in memory."""

    held: list[Trial] = field(default_factory=list)

    def trials(self) -> list[Trial]:
        """Return all trials."""
        return list(self.held)

    def append(self, trial: Trial) -> None:
        """Record a trial."""
        self.held.append(trial)

    def segments(self) -> list[RunSegment]:
        """Return none: trials are told in the order of their numbers."""
        return []

    def set_segments(self, segments: Sequence[RunSegment]) -> None:
        """Ignore the segments."""


def searched(task: TableTask, algorithm: str, rule: str, seed: int) -> list[Trial]:
    """Return the trials of one search, by the loop that every study runs."""
    problem = task.problem
    loop = SearchLoop(
        problem=problem,
        algorithm=algorithms.get(algorithm).start(problem, seed),
        evaluator=SimulatedEvaluator(
            PublishedJob(task.benchmark.table, task.setting, 200), workers=1
        ),
        ledger=Memory(),
        describe=lambda _, genotypes: [{} for _ in genotypes],
        on_trial=lambda _: None,
        study_seed=seed,
        stopping=Stopping(TRAININGS[rule]),
        schedule=Schedule(1),
        fidelity=fidelity.get(rule, **RULES[rule]).start(problem),
    )
    return loop.run()


def curve(task: TableTask, trials: Sequence[Trial]) -> Iterator[tuple[float, float]]:
    """Return the hypervolume of the full trainings among `trials` at every cost of `COSTS`."""
    rows = task.benchmark.table.rows([trial.genotype for trial in trials])
    spent = np.cumsum([trial.fidelity for trial in trials])
    full = np.array([trial.full for trial in trials])
    for cost in COSTS[spent[-1] >= COSTS]:
        found = rows[full & (spent <= cost + 1e-9)]
        yield float(cost), task.hypervolume_ratio(found.tolist())


def run_all(path: Path, datasets: Sequence[str], devices: Sequence[str], seeds: int) -> None:
    """Run what is not in the CSV file `path` yet, and append it."""
    done = set()
    if path.is_file():
        done = set(pd.read_csv(path)[RUN].itertuples(index=False, name=None))
    for seed, algorithm, rule, dataset, device in itertools.product(
        range(seeds), ALGORITHMS, RULES, datasets, devices
    ):
        if (algorithm, rule, dataset, device, seed) in done:
            continue
        task = TableTask(dataset, (device,))
        points = list(curve(task, searched(task, algorithm, rule, seed)))
        frame = pd.DataFrame(points, columns=["cost", "hypervolume_ratio"])
        for name, value in zip(RUN, (algorithm, rule, dataset, device, seed), strict=True):
            frame[name] = value
        frame[[*RUN, "cost", "hypervolume_ratio"]].to_csv(
            path, mode="a", header=not path.is_file(), index=False, float_format="%.5f"
        )
        print(algorithm, rule, dataset, device, seed, *points[-1], flush=True)


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Return means and deviations over runs, and the costs at which the goal was reached."""
    found: dict[str, Any] = {}
    for dataset, part in frame.groupby("dataset"):
        means = mean_curves(part)
        goal = float(means["guided", "full"][100.0])
        found[str(dataset)] = {
            "goal": goal,
            "methods": {
                f"{algorithm}, {rule}": {
                    "runs": int(runs.groupby(RUN).ngroups),
                    "at_a_third": at(runs, 100 / 3),
                    "at_50": at(runs, 50),
                    "cost_of_the_goal": first_cost(means[algorithm, rule], goal),
                }
                for (algorithm, rule), runs in part.groupby(["algorithm", "rule"])
            },
        }
    return found


def known_for_free(dataset: str, devices: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what the partial trainings of the whole table could tell at the most.

    The architectures on the front of partial errors and latencies are trained fully, then those on
    the front of the rest, and so on.

    Returns:
        By the number of fronts: the mean over devices of how many architectures that are, and of
        their hypervolume ratio.
    """
    found: dict[int, list[tuple[int, float]]] = {}
    for device in devices:
        task = TableTask(dataset, (device,))
        table = task.benchmark.table
        points = np.column_stack([table.error(dataset, 12), table.latency_ms(device)])
        left = np.arange(len(points))
        chosen: list[int] = []
        for fronts in range(1, FRONTS + 1):
            on_front = non_dominated(points[left])
            chosen += left[on_front].tolist()
            left = left[~on_front]
            found.setdefault(fronts, []).append((len(chosen), task.hypervolume_ratio(chosen)))
    return {
        str(fronts): {"full_trainings": count, "hypervolume_ratio": ratio}
        for fronts, (count, ratio) in ((k, np.mean(v, axis=0).tolist()) for k, v in found.items())
    }


def mean_curves(frame: pd.DataFrame) -> dict[tuple[str, str], pd.Series[float]]:
    """Return the mean hypervolume ratio by cost, up to what all runs of a method have spent."""
    found = {}
    for (algorithm, rule), runs in frame.groupby(["algorithm", "rule"]):
        by_cost = runs.groupby("cost")["hypervolume_ratio"]
        everybody = by_cost.size() == runs.groupby(RUN).ngroups
        found[str(algorithm), str(rule)] = by_cost.mean()[everybody]
    return found


def at(runs: pd.DataFrame, cost: float) -> dict[str, float]:
    """Return mean and standard deviation over runs at a cost."""
    values = runs.loc[np.isclose(runs["cost"], cost, atol=1e-3), "hypervolume_ratio"]
    return {"mean": float(values.mean()), "std": float(values.std())}


def first_cost(means: pd.Series[float], goal: float) -> float | None:
    """Return the first cost of the grid at which the mean reaches `goal`."""
    reached = means.index[means >= goal]
    return float(reached[0]) if len(reached) else None


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Draw what is missing to the true front's hypervolume over the cost."""
    datasets = sorted(frame["dataset"].unique())
    figure = Figure(figsize=(7 * len(datasets), 5), dpi=100, layout="constrained")
    every = np.atleast_1d(figure.subplots(1, len(datasets)))
    styles = {"full": "-", "mo_asha": "--", "mo_hyperband": ":"}
    colours = {"guided": "#c8381f", "random_search": "#2f6db3"}
    for axes, dataset in zip(every, datasets, strict=True):
        for (algorithm, rule), means in mean_curves(frame[frame["dataset"] == dataset]).items():
            style = {"color": colours[algorithm], "linestyle": styles[rule]}
            axes.plot(means.index, 1 - means, label=f"{algorithm}, {rule}", **style)
        axes.set(yscale="log", xlabel="cost (full trainings)", title=dataset)
        axes.set_ylabel("1 - hypervolume / that of the true front")
        axes.grid(color="#e3e6e9")
    every[0].legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Run what is missing and summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuning", action="store_true", help="the devices for choosing settings")
    parser.add_argument("--seeds", type=int, help="fewer seeds than the README's figures")
    given = parser.parse_args()
    name = "tuning" if given.tuning else "held_out"
    datasets, devices = ((DATASET,), DEVICES)
    if given.tuning:
        datasets, devices = TUNING_DATASETS, TUNING_DEVICES
    seeds = given.seeds or (TUNING_SEEDS if given.tuning else SEEDS)
    path = HERE / f"{name}.csv"
    run_all(path, datasets, devices, seeds)
    frame = pd.read_csv(path)
    found = summary(frame)
    for dataset, part in found.items():
        part["known_for_free"] = known_for_free(dataset, devices)
        print("fronts of all partial trainings:", part["known_for_free"])
        print(f"{dataset}: full training with guided reaches {part['goal']:.4f} at 100")
        print(pd.DataFrame(part["methods"]).T.to_string())
    if not given.tuning:
        write_json_atomically(
            HERE / "results.json", {**found, "versions": versions(), "rules": RULES}
        )
        draw(frame, HERE / "multi_fidelity.png")


if __name__ == "__main__":
    main()
