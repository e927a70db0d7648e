"""The Pareto front as a table on the terminal and as a CSV file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from nas.core.errors import HwnasError
from nas.core.trial import FULL
from nas.results.hypervolume import knee
from nas.results.labels import device_label
from nas.results.study import StudyResults

_HEADINGS = {
    "arch_id": "arch_id",
    "error": "search error %",
    "error_final": "val. error %",
    "error_final_fp32": "val. error fp32 %",
    "error_test": "test error %",
    "error_test_fp32": "test error fp32 %",
    "error_test_refit": "test error refit %",
    "latency_ms_predicted": "predicted ms",
    "latency_ms_measured": "measured ms",
    "latency_ms_measured_fp32": "measured fp32 ms",
    "latency_ms_published": "published ms",
    "latency_deviation_percent": "deviation %",
    "peak_memory_mb_measured": "measured MB",
    "params_m": "params M",
    "macs_m": "MACs M",
}
_ERRORS = tuple(column for column in _HEADINGS if column.startswith("error"))
_FORMATS = {**dict.fromkeys(_ERRORS, ".2f"), "latency_deviation_percent": "+.1f"}
_ABSENT = "-"
_OPTIONAL = (*_ERRORS, "latency_ms_measured_fp32", "latency_ms_published")
"""Columns that are left out where no row has a value."""
_OF_OUR_OWN = (
    "latency_ms_predicted",
    "latency_ms_measured",
    "latency_deviation_percent",
    "peak_memory_mb_measured",
)
"""Columns that a study of published numbers may have no value in."""


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
    frame = report_frame(study)
    frame["genotype"] = [json.dumps(list(genotype)) for genotype in frame["genotype"]]
    try:
        frame.to_csv(path, index=False)
    except OSError as error:
        raise HwnasError(f"{path}: cannot be written ({error.strerror})") from error


def table(study: StudyResults, front: pd.DataFrame | None = None) -> Table:
    """Return a front as a table, predicted and measured latency side by side.

    Args:
        study: Where the front comes from.
        front: Rows of its trials; `None` for its default front.

    Raises:
        HwnasError: The study cannot be read.
    """
    frame = report_frame(study, front)
    kind = "published" if "error" in study.published else "not verified"
    if frame["verified"].all() and (len(frame) or study.status == "finalised"):
        kind = "verified"
    drawn = Table(title=f"{study.name}: Pareto front ({kind})", caption=_caption(study, front))
    headings = _headings(study, frame)
    for column, heading in headings.items():
        drawn.add_column(heading, justify="left" if column == "arch_id" else "right")
    for row in frame.to_dict("records"):
        style = "bold" if row["knee"] else None
        drawn.add_row(*(_cell(row, column) for column in headings), style=style)
    return drawn


def _caption(study: StudyResults, front: pd.DataFrame | None) -> str:
    """Return what the numbers of a front are, and where latency was measured."""
    own = "search error: validation error after the search's training"
    if front is None or front["verified"].any():
        own += "; val. and test error: of the network as the device runs it"
    caption = study.published.get("error", own)
    if front is not None and len(front) and (share := front["fidelity"].max()) < FULL:
        caption = f"{caption}; here after {100 * share:.3g} % of that training"
    if "latency_ms" in study.published:
        return f"{caption}; {study.published['latency_ms']}"
    device = device_label(study.record.get("device"))
    return f"{caption}; measured on {device}" if device else caption


def _headings(study: StudyResults, frame: pd.DataFrame) -> dict[str, str]:
    """Return the headings of the columns that a front is shown with."""
    own = [*study.columns.values(), *study.verified_columns.values()]
    headings = _HEADINGS | {column: column for column in own if column not in _HEADINGS}
    optional = set(_OPTIONAL)
    if "error" in study.published:
        headings["error"] = "published error %"
    if study.published:
        optional |= set(_OF_OUR_OWN)
    empty = [column for column in optional if not _numbers(frame, column).notna().any()]
    return {column: text for column, text in headings.items() if column not in empty}


def _cell(row: dict[Any, Any], column: str) -> str:
    value = row.get(column)
    if column == "arch_id":
        return f"{value} (knee)" if row["knee"] else str(value)
    if value is None or np.isnan(value):
        return _ABSENT
    text = format(value, _FORMATS.get(column, "#.3g"))
    interval = row.get("latency_ms_measured_ci")
    if column != "latency_ms_measured" or interval is None or np.isnan(interval):
        return text
    return f"{text} ± {interval:.1g}"


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    return frame.get(column, pd.Series(np.nan, index=frame.index))
