"""`nas benchmark search`: how many evaluations algorithms and other tools need."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nas import tables
from nas.benchmark import contenders
from nas.benchmark.campaign import Campaign
from nas.benchmark.contenders import Contender
from nas.benchmark.record import Entry, Record
from nas.benchmark.task import Task
from nas.cli import search_report
from nas.core.errors import ConfigError

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
    record = Record(out / "runs")
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


def tasks(name: str, devices: Sequence[str]) -> list[Task]:
    """Return the tasks of one name: a device each, or each device with the next one."""
    if not name.endswith(THREE):
        return [Task(name, (device,)) for device in devices]
    following = [*devices[1:], devices[0]]
    pairs = zip(devices, following, strict=True)
    return [Task(name.removesuffix(THREE), pair) for pair in pairs]


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

    def __call__(self, entry: Entry, left: int) -> None:
        key, made = entry.key, entry.run
        sys.stderr.write(
            f"{time.monotonic() - self._start:6.0f} s: {key.contender} on {key.task.name} "
            f"{'+'.join(key.task.devices)}, seed {key.seed}: {len(made.rows)} evaluations, "
            f"{made.seconds * len(made.rows):.1f} s; {left} runs left\n"
        )
