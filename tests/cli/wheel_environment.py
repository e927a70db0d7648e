"""An environment that holds the project's wheel, and what one of its extras needs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Install as `pip install 'hwnas[EXTRA]'` does, from the packages of this environment.

    Returns:
        The folder of the environment's commands.
    """
    venv.create(folder, symlinks=True)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", wheel], check=True, capture_output=True, timeout=200)
    [site] = (folder / "lib").glob("python*/site-packages")
    [found] = metadata.distributions(name="hwnas", path=[str(site)])
    linked: set[str] = set()
    for requirement in needs(found, {extra}):
        _link(requirement, site, linked)
    return folder / "bin"


def needs(found: metadata.Distribution, extras: Collection[str] = ()) -> list[Requirement]:
    """Return what a distribution requires here, with some of its extras."""
    required = map(Requirement, found.requires or [])
    return [
        each
        for each in required
        if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in ("", *extras))
    ]


def _link(requirement: Requirement, site: Path, linked: set[str]) -> None:
    """Link what is installed of a distribution and of what it needs."""
    if requirement.name in linked:
        return
    linked.add(requirement.name)
    found = metadata.distribution(requirement.name)
    for part in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
        if not (site / part).exists() and part != "__pycache__":
            (site / part).symlink_to(Path(str(found.locate_file(part))))
    for each in needs(found, requirement.extras):
        _link(each, site, linked)


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, where nothing leads it to the source tree."""
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=plain, capture_output=True, text=True, timeout=280, check=False
    )
