"""Rows of results that are kept as they come, so that a run goes on where it was stopped."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Print a row and add it to a CSV file, which begins with the names of its columns."""
    print(dict(row), flush=True)
    new = not file.is_file()
    with file.open("a", newline="") as opened:
        writer = csv.DictWriter(opened, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
