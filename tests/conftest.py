"""What benchmarks share can be imported in tests as well."""

from __future__ import annotations

import sys
from pathlib import Path

# Appended, so that the installed packages come before folders of the same name.
sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
