"""`nas doctor`: what this machine has, and what to do about what is missing."""

from __future__ import annotations

import argparse
import importlib
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import nas
from nas.cli.device import print_json, print_table, runtime_record
from nas.core.host import host_memory, usable_cores, usable_memory
from nas.devices import runtimes
from nas.devices.measuring.environment import cpu_model, load_average

DEVELOPERS = ("dev", "peers")
"""Extras that users do not need."""

GIGABYTE = 1e9

BUSY = 0.5
"""Load of a core from which measurements suffer."""

PROGRAMS = {"ssh": "install OpenSSH's client to measure on boards"}
"""Programs that are started, and what to do where they are missing."""


def doctor_command(parsed: argparse.Namespace) -> int:
    """Print what is here and what is missing; return the exit status."""
    rows = [*_machine(Path(parsed.runs)), *_packages(), *_runtimes(), *_programs(), *_data()]
    if parsed.json:
        return print_json(rows)
    print_table(rows, ("what", "found", "fix"))
    return 0


def _row(what: str, found: str | None, fix: str | None = None) -> dict[str, Any]:
    return {"what": what, "found": found, "fix": fix}


def _machine(runs: Path) -> Iterator[dict[str, Any]]:
    there, load = runs.absolute(), load_average()
    place = next(folder for folder in (there, *there.parents) if folder.exists())
    yield _row("hwnas", f"{nas.__version__}, Python {platform.python_version()}")
    yield _row("system", platform.platform())
    yield _row("processor", f"{cpu_model()}, {usable_cores()} cores may be used")
    yield _row("memory", *_memory())
    yield _row("disk", f"{shutil.disk_usage(place).free / GIGABYTE:.1f} GB free in {place}")
    if load is not None:
        # Measurements wait for no other processes than our own, and repeat until they agree.
        busy = load > BUSY * usable_cores()
        fix = "end other work before latencies are measured" if busy else None
        yield _row("load", f"{load:.2f} in the last minute", fix)
    yield _row("GPUs", _gpus())


def _memory() -> tuple[str | None, str | None]:
    """Return how much memory this process may use, or what is missing to know it."""
    try:
        usable, host = usable_memory() / GIGABYTE, host_memory() / GIGABYTE
    except ImportError:
        return None, "pip install psutil"
    return f"{usable:.1f} of {host:.1f} GB may be used", None


def _gpus() -> str:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "none is seen without PyTorch"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) or "none"


def _packages() -> Iterator[dict[str, Any]]:
    """Yield the version of each package that is required, by hwnas or by one of its extras."""
    needed_by: dict[str, str] = {}
    if _version("hwnas") is None:
        yield _row("package hwnas", None, "pip install .")
        return
    for line in metadata.requires("hwnas") or []:
        requirement, _, condition = line.partition(";")
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", condition)
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        if extra is None or extra[1] not in DEVELOPERS:
            needed_by.setdefault(name, f"hwnas[{extra[1]}]" if extra else "hwnas")
    for name, ours in needed_by.items():
        version = _version(name)
        yield _row(f"package {name}", version, None if version else f"pip install '{ours}'")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _runtimes() -> Iterator[dict[str, Any]]:
    for name in runtimes.names():
        record = runtime_record(name)
        found = [record["version"], *record["providers"], *record["precisions"]]
        yield _row(f"runtime {name}", ", ".join(filter(None, found)), record["install"])


def _programs() -> Iterator[dict[str, Any]]:
    for name, use in PROGRAMS.items():
        path = shutil.which(name)
        yield _row(f"program {name}", path, None if path else use)


def _data() -> Iterator[dict[str, Any]]:
    try:
        from nas.data import fashion_mnist
    except ImportError:  # on a board
        return
    folders = (fashion_mnist.cache_folder(), fashion_mnist.SYSTEM_FOLDER)
    here = (f for f in folders if all((f / name).is_file() for name in fashion_mnist.MD5))
    found = next(here, None)
    fix = None if found else "nas fetch fashion_mnist"
    yield _row("data fashion_mnist", str(found) if found else None, fix)
