"""A user's own modules, whose components register themselves when they are imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.core.errors import ConfigError


def import_modules(names: Sequence[str]) -> None:
    """Import modules from the working directory or from where Python looks anyway.

    Ray gives its workers the working directory as well, so they find the same modules.

    Raises:
        ConfigError: A module cannot be imported.
    """
    folder = str(Path.cwd())
    # Last, so that a file of the user never takes the place of an installed package.
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            fix = f"start in the folder that holds it, or set PYTHONPATH ({error})"
            expected = f"a module that can be imported in {folder}"
            raise ConfigError("imports", name, expected, fix) from error
