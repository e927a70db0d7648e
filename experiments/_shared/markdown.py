"""Tables as Markdown has them."""

from __future__ import annotations

from typing import Any

import pandas as pd


def mean_and_deviation(values: Any, digits: int = 2) -> list[str]:
    """Return a text for each group of a grouped column: its mean and its standard deviation."""
    mean, deviation = values.mean(), values.std().fillna(0)
    pairs = zip(mean, deviation, strict=True)
    return [f"{one:.{digits}f} ± {other:.{digits}f}" for one, other in pairs]


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown; numbers up to 1 with four digits, larger ones with one."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4f}" if 0 < value <= 1 else f"{value:.1f}"
        return str(value)

    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
