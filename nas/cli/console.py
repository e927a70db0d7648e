"""The tables that the command line prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from nas.cli.device import printed
from nas.core.errors import printable
from nas.results.terminal import console

if TYPE_CHECKING:
    import pandas as pd

    from nas.results.study import StudyResults


def print_records(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print records as a table of some of their keys."""
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for record in records:
        table.add_row(*(escape(printed(record.get(column))) for column in columns))
    console().print(table)


def print_front(study: StudyResults, front: pd.DataFrame | None = None, why: str = "") -> None:
    """Print a front, by default the study's own, as a table; of an empty one say `why`."""
    # pandas takes a while to load, and this module serves commands that need none.
    from nas.results.report import table

    front = study.pareto() if front is None else front
    if front.empty:
        limits = ", ".join(map(str, study.constraints)) or "none"
        line = why or f"no architecture is left; constraints: {limits}"
        said = printable(f"{study.name}: {line}")
        console().print(said, highlight=False, markup=False, soft_wrap=True)
        return
    drawn = table(study, front)
    # On a narrow terminal cells fold and lose nothing: an arch_id must be there to be picked.
    drawn.box, drawn.pad_edge, drawn.collapse_padding = box.SIMPLE_HEAD, False, True
    drawn.columns[0].no_wrap = True
    for column in drawn.columns:
        column.overflow = "fold"
    console().print(drawn)
