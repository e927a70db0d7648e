"""How many evaluations a search needs: our algorithms and other tools on published tables.

    python experiments/search_efficiency/run.py
    python experiments/search_efficiency/run.py nsga2 --tasks cifar10 --costs pixel2 --out mine

Runs that are recorded are not made again. Other tools need `pip install 'hwnas[peers]'`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import contenders
import search_report
from _shared.table_task import SETTINGS, TableTask
from campaign import Campaign, RecordedRun, RunRecord
from contenders import Contender

from nas import tables
from nas.core.errors import ConfigError, HwnasError, UnknownNameError

HERE = Path(__file__).resolve().parent

TASKS = ["cifar10", "macro", "accel", "accel_whole", "accel_tight"]
"""What is searched unless others are chosen."""

THREE = "_3"
"""Behind the name of a setting: three objectives."""


def run(parsed: argparse.Namespace) -> int:
    """Make the runs that are not recorded yet, and report those of all methods."""
    _check(parsed)
    out: Path = parsed.out
    chosen = [contenders.get(name) for name in parsed.methods or contenders.names()]
    campaign = Campaign(
        contenders=chosen,
        tasks=[task for name in parsed.tasks for task in tasks(name, parsed.costs)],
        seeds=range(parsed.first_seed, parsed.first_seed + parsed.seeds),
        evaluations=parsed.evaluations,
    )
    record = RunRecord(out / "runs")
    if not parsed.report_only:
        _tell_missing(chosen)
        campaign.finish(record, parsed.jobs, _Progress())
    everybody = [contenders.get(name) for name in contenders.names()]
    entries = list(dataclasses.replace(campaign, contenders=everybody).entries(record).values())
    if not entries:
        sys.stderr.write("nothing to report: no run is recorded\n")
        return 0
    search_report.write(entries, parsed.evaluations, out)
    return 0


def tasks(name: str, chosen: Sequence[str] | None) -> list[TableTask]:
    """Return the tasks of one name: a cost each, or each cost with the next one.

    Args:
        name: Of a setting, maybe with `THREE` behind it.
        chosen: Costs; `None` for the setting's own.
    """
    setting = name.removesuffix(THREE)
    if setting not in SETTINGS:
        raise UnknownNameError("--tasks", name, SETTINGS)
    costs = SETTINGS[setting].costs if chosen is None else chosen
    for cost in costs:
        tables.get(SETTINGS[setting].table).cost(cost)  # refuses one that it does not have
    if setting == name:
        return [TableTask(name, (cost,)) for cost in costs]
    if len(costs) < 2:
        raise ConfigError("--costs", list(costs), "two or more for three objectives")
    following = [*costs[1:], costs[0]]
    return [TableTask(setting, pair) for pair in zip(costs, following, strict=True)]


def _check(parsed: argparse.Namespace) -> None:
    for name in ("seeds", "evaluations", "jobs"):
        if getattr(parsed, name) < 1:
            raise ConfigError(f"--{name}", getattr(parsed, name), "1 or more")


def _tell_missing(chosen: Sequence[Contender]) -> None:
    for contender in chosen:
        if contender.missing:
            packages = ", ".join(contender.missing)
            sys.stderr.write(
                f"{contender.name}: left out, {packages} is not installed; "
                "pip install 'hwnas[peers]'\n"
            )


class _Progress:
    """Tells every run that has ended, with the time."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, entry: RecordedRun, left: int) -> None:
        key, made = entry.key, entry.run
        sys.stderr.write(
            f"{time.monotonic() - self._start:6.0f} s: {key.contender} on {key.task.name} "
            f"{'+'.join(key.task.costs)}, seed {key.seed}: {len(made.rows)} evaluations, "
            f"{made.seconds * len(made.rows):.1f} s; {left} runs left\n"
        )


def parser() -> argparse.ArgumentParser:
    """Return what the script understands."""
    whole = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("methods", metavar="METHOD", nargs="*", help="default: all")
    whole.add_argument(
        "--tasks",
        metavar="TASK",
        nargs="+",
        default=TASKS,
        help=f"{', '.join(SETTINGS)}; with _3 behind it, two costs at a time "
        f"(default: {' '.join(TASKS)})",
    )
    whole.add_argument(
        "--costs",
        metavar="COST",
        nargs="+",
        help="of the task's table: devices, params_m, macs_m (default: the task's)",
    )
    whole.add_argument("--seeds", type=int, default=10, help="runs a cost (default: 10)")
    whole.add_argument("--first-seed", type=int, default=1000, help="(default: 1000)")
    whole.add_argument(
        "--evaluations",
        type=int,
        default=350,
        help="distinct ones of a run, 200 on some tasks (default: 350)",
    )
    whole.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    whole.add_argument(
        "--report-only", action="store_true", help="make no run, report those that there are"
    )
    whole.add_argument("--out", type=Path, default=HERE, help="folder (default: this script's)")
    return whole


if __name__ == "__main__":
    try:
        sys.exit(run(parser().parse_args()))
    except HwnasError as error:
        sys.exit(f"error: {error}")
