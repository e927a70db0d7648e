"""Tables as Markdown has them."""

from __future__ import annotations

import pandas as pd


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown; numbers up to 1 with four digits, larger ones with one."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4f}" if 0 < value <= 1 else f"{value:.1f}"
        return str(value)

    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
