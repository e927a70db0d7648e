"""How many evaluations a search needs: our algorithms and other tools on NAS-Bench-201.

    python experiments/search_efficiency/run.py
    python experiments/search_efficiency/run.py guided nsga2 --devices gold_6240 pixel2 --out mine

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
from _shared.table_task import TableTask
from campaign import Campaign, RecordedRun, RunRecord
from contenders import Contender

from nas import tables
from nas.core.errors import ConfigError, HwnasError

HERE = Path(__file__).resolve().parent

THREE = "_3"
"""Behind the name of a data set: three objectives."""


def run(parsed: argparse.Namespace) -> int:
    """Make the runs that are not recorded yet, and report those of all methods."""
    _check(parsed)
    out: Path = parsed.out
    chosen = [contenders.get(name) for name in parsed.methods or contenders.names()]
    campaign = Campaign(
        contenders=chosen,
        tasks=[task for name in parsed.tasks for task in tasks(name, parsed.devices)],
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


def tasks(name: str, devices: Sequence[str]) -> list[TableTask]:
    """Return the tasks of one name: a device each, or each device with the next one."""
    if not name.endswith(THREE):
        return [TableTask(name, (device,)) for device in devices]
    following = [*devices[1:], devices[0]]
    pairs = zip(devices, following, strict=True)
    return [TableTask(name.removesuffix(THREE), pair) for pair in pairs]


def _check(parsed: argparse.Namespace) -> None:
    for name in ("seeds", "evaluations", "jobs"):
        if getattr(parsed, name) < 1:
            raise ConfigError(f"--{name}", getattr(parsed, name), "1 or more")
    if len(parsed.devices) < 2 and any(name.endswith(THREE) for name in parsed.tasks):
        raise ConfigError("--devices", parsed.devices, "two or more for three objectives")
    for device in parsed.devices:
        tables.get("nasbench201").latency_ms(device)  # refuses one that it does not have


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
            f"{'+'.join(key.task.devices)}, seed {key.seed}: {len(made.rows)} evaluations, "
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
        default=["cifar10"],
        help="cifar10, cifar100, imagenet16; with _3 behind it, latencies of two devices at a time "
        "(default: cifar10)",
    )
    whole.add_argument(
        "--devices",
        metavar="DEVICE",
        nargs="+",
        default=["raspi4", "pixel3", "gold_6226", "2080ti_32", "fpga"],
        help="of NAS-Bench-201 (default: five of different kinds)",
    )
    whole.add_argument("--seeds", type=int, default=10, help="runs a device (default: 10)")
    whole.add_argument("--first-seed", type=int, default=1000, help="(default: 1000)")
    whole.add_argument(
        "--evaluations", type=int, default=350, help="distinct ones of a run (default: 350)"
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
