"""Every test that docs/RELIABILITY.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\|.*\|.*\| `(tests/[\w/]+\.py)::(\w+)` \|$")


def test_the_table_of_faults_names_tests_that_exist() -> None:
    lines = (ROOT / "docs" / "RELIABILITY.md").read_text("utf-8").splitlines()
    rows = [
        line for line in lines if line.startswith("|") and not re.match(r"\| (fault|---)", line)
    ]
    assert len(rows) > 30
    for row in rows:
        found = ROW.match(row)
        assert found, row
        assert re.search(rf"^ *def {found[2]}\(", (ROOT / found[1]).read_text("utf-8"), re.M), row
