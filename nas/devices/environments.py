"""Python environments of their own, for converters whose packages do not go with ours.

They lie in the cache folder and are made when they are first needed. They see the packages of this
environment behind their own, so that PyTorch is not installed a second time.
"""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from nas.core.errors import DeviceError, last_lines
from nas.core.files import cache_path, hashed, temporary_folder
from nas.core.host import try_lock

_INSTALL_SECONDS = 3600
_logger = logging.getLogger(__name__)


def python_with(name: str, requirements: tuple[str, ...], size: str) -> Path:
    """Return the Python of an environment with these packages, which is made where there is none.

    Args:
        name: Of the environment, for people.
        requirements: What pip installs.
        size: What that takes on the disk, for people.

    Raises:
        DeviceError: They cannot be installed.
    """
    ours = sysconfig.get_path("purelib")
    seen = [requirements, sys.version, ours, importlib.metadata.version("torch")]
    folder = cache_path("environments") / f"{name}-{hashed(seen, 12)}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if python.is_file():
        return python
    line = "making the environment of %s's converter in %s: %s, some minutes, once"
    _logger.warning(line, name, folder, size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        while not try_lock(lock):  # another process makes it
            time.sleep(1)
        if not python.is_file():
            _make(name, folder, python.relative_to(folder), ours, requirements)
    return python


def _make(name: str, folder: Path, python: Path, ours: str, requirements: tuple[str, ...]) -> None:
    """Make an environment; what is not made to its end leaves nothing behind."""
    with temporary_folder(folder.parent) as parent:
        made = parent / "environment"
        _run(name, sys.executable, "-m", "venv", str(made))
        inside = str(made / python)
        # Isolated from `PYTHONPATH`, whose packages pip would take for installed ones.
        packages = Path(_run(name, inside, "-I", "-c", _PACKAGES).strip())
        (packages / "hwnas.pth").write_text(f"{ours}\n")
        _run(name, inside, "-I", "-m", "pip", "install", "--quiet", *requirements)
        made.rename(folder)


_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"


def _run(name: str, *command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if done.returncode:
        said = last_lines(done.stdout + done.stderr)
        raise DeviceError(f"the environment of {name}'s converter cannot be made ({said[:300]})")
    return done.stdout
