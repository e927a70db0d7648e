"""The Pareto front as a table, on the terminal and in files."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from nas.core.errors import ConfigError, printable
from nas.core.files import write_bytes_atomically
from nas.core.trial import FULL
from nas.results.columns import CONFIDENCE_INTERVAL, Column, columns_of, device_label
from nas.results.hypervolume import knee
from nas.results.study import StudyResults

TABLES = (".csv", ".md", ".parquet")
"""Endings of files of tables."""

_ABSENT = "-"


def report_frame(study: StudyResults, front: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a front, by default the study's own, with two columns more.

    `latency_deviation_percent` says by how much the measured latency lies above the predicted one,
    NaN without both; `knee` marks the knee where every row has a value in all of the front's own
    columns.
    """
    front = study.pareto() if front is None else front.copy()
    predicted, seen = (_numbers(front, f"latency_ms_{kind}") for kind in ("predicted", "measured"))
    front["latency_deviation_percent"] = 100 * (seen / predicted - 1)
    front["knee"] = False
    points = front[study.front_columns(front)].to_numpy(dtype=float)
    if len(front) and np.isfinite(points).all():
        front["knee"] = np.arange(len(front)) == knee(points)
    return front


def write_pareto_csv(study: StudyResults, path: Path) -> None:
    """Write `report_frame` to the CSV file `path`; genotypes are JSON lists.

    Raises:
        HwnasError: The study cannot be read, or the file cannot be written.
    """
    write_table(report_frame(study), path)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write rows of architectures into a file, whose suffix says how: one of `TABLES`.

    Genotypes are JSON lists.

    Raises:
        ConfigError: The suffix is another one, or a package for it is missing.
        HwnasError: The file cannot be written.
    """
    rows = frame.assign(genotype=[json.dumps(list(genotype)) for genotype in frame["genotype"]])
    suffix = path.suffix.lower()
    if suffix == ".csv":
        write_bytes_atomically(path, rows.to_csv(index=False).encode())
    elif suffix == ".md":
        lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.to_numpy().tolist()]
        cells = [[_markdown(value) for value in line] for line in lines]
        text = "".join(f"| {' | '.join(line)} |\n" for line in cells)
        write_bytes_atomically(path, text.encode())
    elif suffix == ".parquet":
        try:
            content = rows.to_parquet(index=False)
        except ImportError as error:
            raise ConfigError("--out", str(path), "pyarrow", "pip install pyarrow") from error
        write_bytes_atomically(path, content)
    else:
        raise ConfigError("--out", str(path), f"a file that ends with {', '.join(TABLES)}")


def _markdown(value: object) -> str:
    """Return a value as a cell of a Markdown table."""
    if isinstance(value, float):
        return _ABSENT if np.isnan(value) else f"{value:.6g}"
    return _ABSENT if value is None else str(value).replace("|", "\\|")


def table(study: StudyResults, front: pd.DataFrame | None = None) -> Table:
    """Return a front, by default the study's own, with predicted beside measured latency.

    Raises:
        HwnasError: The study cannot be read.
    """
    frame = report_frame(study, front)
    kind = "published" if "error" in study.published else "not verified"
    if frame["verified"].all() and (len(frame) or study.status == "finalised"):
        kind = "verified"
    title = f"{study.name}: Pareto front ({kind})"
    drawn = Table(title=_text(title), caption=_text(caption(study, front)))
    columns = shown_columns(study, frame)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.name == "arch_id" else "right"
        drawn.add_column(_text(column.table_heading()), justify=justify)
    for row in frame.to_dict("records"):
        style = "bold" if row["knee"] else None
        drawn.add_row(*(_text(_cell(row, column)) for column in columns), style=style)
    return drawn


def html_table(study: StudyResults) -> str:
    """Return the study's own front as an HTML table, with what its numbers are.

    Raises:
        HwnasError: The study cannot be read.
    """
    frame = report_frame(study)
    columns = shown_columns(study, frame)
    rows = [[_cell(row, column) for column in columns] for row in frame.to_dict("records")]
    shown = pd.DataFrame(rows, columns=[column.table_heading() for column in columns])
    state = html.escape(f"{study.name}: {study.status}; {caption(study, None)}")
    return f"<p>{state}</p>{shown.to_html(index=False, border=0)}"


def _text(text: str) -> str:
    """Return a text as markup that says just that, whoever wrote it."""
    return escape(printable(text))


def caption(study: StudyResults, front: pd.DataFrame | None) -> str:
    """Return what the numbers of a front are, and where latency was measured or estimated."""
    own = "search error: validation error after the search's training"
    if front is None or front["verified"].any():
        own += "; val. and test error: of the network as the device runs it"
    caption = study.published.get("error", own)
    if front is not None and len(front) and (share := front["fidelity"].max()) < FULL:
        caption = f"{caption}; here after {100 * share:.3g} % of that training"
    if "latency_ms" in study.published:
        return f"{caption}; {study.published['latency_ms']}"
    device = device_label(study.record.get("device"))
    how = "estimated for" if study.estimated else "measured on"
    return f"{caption}; {how} {device}" if device else caption


def shown_columns(study: StudyResults, frame: pd.DataFrame) -> list[Column]:
    """Return the columns that a front is shown with, those of its objectives among them."""
    names = [*study.columns.values(), *study.verified_columns.values()]
    known = columns_of(study.record, names)
    if "error" in study.published:
        known["error"] = dataclasses.replace(known["error"], heading="published error")
    shown = {name: column for name, column in known.items() if column.heading}
    for name in names:
        shown.setdefault(name, dataclasses.replace(known[name], heading=name, unit=""))
    absent = bool(study.published or study.estimated)
    return [
        column
        for name, column in shown.items()
        if not (column.optional or (absent and column.own)) or _numbers(frame, name).notna().any()
    ]


def _cell(row: dict[Any, Any], column: Column) -> str:
    value = row.get(column.name)
    if column.name == "arch_id":
        return f"{value} (knee)" if row["knee"] else str(value)
    if value is None or np.isnan(value):
        return _ABSENT
    text = format(value, column.number_format)
    interval = row.get(f"{column.name}{CONFIDENCE_INTERVAL}")
    return text if interval is None or np.isnan(interval) else f"{text} ± {interval:.1g}"


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    return frame.get(column, pd.Series(np.nan, index=frame.index))
