"""Pictures of studies: what was tried, what the search expected, what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from nas.core.errors import ConfigError
from nas.core.trial import FULL
from nas.results.columns import CONFIDENCE_INTERVAL, Column, columns_of, device_label
from nas.results.pictures import write_picture
from nas.results.report import report_frame
from nas.results.study import StudyResults, distinct_names

SIZE_INCHES, DPI = (12.0, 7.5), 100
GREY, BLUE, _RED, _BLACK = "#a8b0b8", "#2f6db3", "#c8381f", "#303030"
_STUDIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#303030")
"""Colours that are told apart without seeing all colours (Okabe and Ito, 2008)."""
_MARKERS = "osD^vPX"
_WIDE = 20.0


@dataclass(frozen=True)
class _View:
    """Which columns lie along the axes: of the search's trials, and of verified architectures."""

    x: str
    y: str
    x_verified: str
    y_verified: str
    colour: str | None
    joined: bool
    known: dict[str, Column]


def plot_pareto(study: StudyResults, path: Path) -> None:
    """Draw `pareto_figure` into a file; see `write_picture`.

    Raises:
        HwnasError: The study cannot be read, or the file cannot be written.
    """
    write_picture(pareto_figure(study), path)


def plot_fronts(
    studies: Sequence[StudyResults], fronts: Sequence[pd.DataFrame], path: Path
) -> None:
    """Draw `fronts_figure` into a file; see `write_picture`.

    Raises:
        HwnasError: The studies have other objectives, or the file cannot be written.
    """
    write_picture(fronts_figure(studies, fronts), path)


def pareto_figure(study: StudyResults) -> Figure:
    """Draw the study's trials and fronts.

    The first objective is drawn against the second; with a third, the trials' colour shows it.
    A study of one objective is drawn over the number of its trials. Neither failed trials nor
    partial trainings are shown. Trials and the front of the search stand where the search saw them;
    verified architectures stand at their own error and their measured latency, with the 95 %
    confidence interval of the measurement.

    Raises:
        HwnasError: The study cannot be read.
    """
    view = _view(study)
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    trials = study.trials()
    drawn = (trials["status"] == "complete") & (trials["fidelity"] == FULL)
    trials = trials[drawn].dropna(subset=[view.x, view.y])
    _draw_trials(figure, axes, trials, view)
    _draw_search_front(axes, study, view)
    front = report_frame(study)
    _draw_verified(axes, trials[trials["verified"]], front, view)
    _draw_knee(axes, front[front["knee"]], view)
    points = trials[[view.x, view.y]]
    verified = trials[[view.y_verified]].set_axis([view.y], axis="columns")
    device = device_label(study.record.get("device"))
    _finish(axes, study, view, pd.concat([points, verified]), device)
    return figure


def fronts_figure(studies: Sequence[StudyResults], fronts: Sequence[pd.DataFrame]) -> Figure:
    """Draw fronts of studies, their first objective against the second.

    Verified architectures stand at what was measured, others at what the search saw; the legend
    says which they are.

    Args:
        studies: Whose first two objectives are the same.
        fronts: Of `StudyResults.pareto` by the studies' own objectives, one for every study.

    Raises:
        ConfigError: A study has other objectives than the first one, or one only.
    """
    first, expected = studies[0], "two objectives or more"
    for study in studies:
        if len(study.columns) < 2 or list(study.columns)[:2] != list(first.columns)[:2]:
            got = ", ".join(study.columns)
            raise ConfigError(f"objectives of {study.name}", got, expected)
        expected = f"the first two of {first.name}: {', '.join(list(first.columns)[:2])}"
    view = _view(first)
    devices = [device_label(study.record.get("device")) for study in studies]
    names = distinct_names(studies)
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    axes, points = figure.add_subplot(), []
    for i, (study, front) in enumerate(zip(studies, fronts, strict=True)):
        verified = bool(front["verified"].any())
        y, x = list((study.verified_columns if verified else study.columns).values())[:2]
        shown, bars = front.dropna(subset=[x, y]).sort_values(x), f"{x}{CONFIDENCE_INTERVAL}"
        points.append(shown[[x, y]].set_axis([view.x, view.y], axis="columns"))
        what = ["verified" if verified else "not verified"]
        what += devices[i : i + 1] if len(set(devices)) > 1 else []
        axes.errorbar(
            shown[x],
            shown[y],
            xerr=shown[bars].fillna(0) if bars in shown else None,
            color=_STUDIES[i % len(_STUDIES)],
            fmt=_MARKERS[i % len(_MARKERS)],
            label=f"{names[i]} ({', '.join(what)})",
            linestyle="-" if len(study.columns) == 2 else "none",
            drawstyle="steps-post",
            markersize=7,
            linewidth=1.6,
            capsize=3,
        )
    device = devices[0] if len(set(devices)) == 1 else ""
    _finish(axes, first, view, pd.concat(points), device)
    axes.set_title(", ".join(names), fontsize=15, loc="left")
    return figure


def _view(study: StudyResults) -> _View:
    columns, verified = list(study.columns.values()), list(study.verified_columns.values())
    known = columns_of(study.record, [*columns, *verified])
    if len(columns) == 1:
        return _View("number", columns[0], "number", verified[0], None, joined=False, known=known)
    colour, joined = (columns[2] if columns[2:] else None), len(columns) == 2
    return _View(columns[1], columns[0], verified[1], verified[0], colour, joined, known)


def _draw_trials(figure: Figure, axes: Axes, trials: pd.DataFrame, view: _View) -> None:
    style: dict[str, Any] = {"s": 34, "linewidths": 0, "zorder": 1}
    text = f"trials of the search ({len(trials)})"
    if view.colour is None:
        axes.scatter(trials[view.x], trials[view.y], color=GREY, alpha=0.6, label=text, **style)
        return
    drawn = axes.scatter(
        trials[view.x], trials[view.y], c=trials[view.colour], cmap="viridis", label=text, **style
    )
    figure.colorbar(drawn, ax=axes, label=view.known[view.colour].label(), pad=0.01)


def _draw_search_front(axes: Axes, study: StudyResults, view: _View) -> None:
    front = study.pareto(objectives=list(study.columns.values())).sort_values(view.x)
    style: dict[str, Any] = {"color": BLUE, "zorder": 2, "label": "front of the search"}
    if view.joined:
        style |= {"drawstyle": "steps-post", "linewidth": 1.4}
    else:
        style |= {"linestyle": "none"}
    face = "white" if view.colour is None else "none"
    axes.plot(front[view.x], front[view.y], marker="o", markersize=7, markerfacecolor=face, **style)


def _draw_verified(axes: Axes, verified: pd.DataFrame, front: pd.DataFrame, view: _View) -> None:
    """Draw every verified architecture; those of the front full and joined, the others pale."""
    x, y = view.x_verified, view.y_verified
    verified = verified.dropna(subset=[x, y])
    on_front = verified["arch_id"].isin(front["arch_id"])
    bars = f"{x}{CONFIDENCE_INTERVAL}"
    groups = {"verified, behind the front": (~on_front, 0.35), "verified front": (on_front, 1.0)}
    for text, (chosen, alpha) in groups.items():
        points = verified[chosen].sort_values(x)
        if points.empty:
            continue
        line: dict[str, Any] = {"fmt": "D"}
        if view.joined and alpha == 1.0:
            line |= {"linestyle": "-", "linewidth": 1.8, "drawstyle": "steps-post"}
        axes.errorbar(
            points[x],
            points[y],
            xerr=points[bars].fillna(0) if bars in points else None,
            color=_RED,
            alpha=alpha,
            label=f"{text} (measured, 95 % interval)" if bars in points else text,
            markersize=7,
            capsize=4,
            elinewidth=1.5,
            zorder=3,
            **line,
        )


def _draw_knee(axes: Axes, knees: pd.DataFrame, view: _View) -> None:
    for row in knees.to_dict("records"):
        x = row[view.x_verified if row["verified"] else view.x]
        y = row[view.y_verified if row["verified"] else view.y]
        style: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": _BLACK}
        style |= {"markersize": 19, "markeredgewidth": 1.8, "linestyle": "none", "zorder": 4}
        axes.plot(x, y, marker="o", **style)
        x_unit, y_unit = view.known[view.x].unit, view.known[view.y].unit
        axes.annotate(
            f"knee {row['arch_id']}\n{y:.3g} {y_unit}, {x:.3g} {x_unit}",
            (x, y),
            xytext=(36, 70),
            textcoords="offset points",
            fontsize=12,
            arrowprops={"arrowstyle": "-", "color": _BLACK},
            bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "none"},
            zorder=5,
        )


def _finish(
    axes: Axes, study: StudyResults, view: _View, points: pd.DataFrame, device: str
) -> None:
    """Label and scale axes on which `points` are drawn, in the columns `view.x` and `view.y`."""
    axes.set_xlabel(_axis_label(view, view.x, view.x_verified, study, device), fontsize=14)
    axes.set_ylabel(_axis_label(view, view.y, view.y_verified, study, device), fontsize=14)
    if view.x != "number" and is_wide(points[view.x].dropna()):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    if is_wide(points[view.y].dropna()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_title(study.name, fontsize=15, loc="left")
    axes.tick_params(labelsize=12)
    axes.grid(color="#e3e6e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=12, frameon=False, loc="upper right")


def is_wide(values: pd.Series[float]) -> bool:
    """Return whether values span so much that a linear axis would hide the small ones."""
    return len(values) > 0 and bool(0 < values.min() < values.max() / _WIDE)


def _axis_label(view: _View, column: str, verified: str, study: StudyResults, device: str) -> str:
    if column == "error" and column in study.published:
        return f"{study.published[column]} ({view.known[column].unit})"
    # Points of the search and verified ones share the axis; the legend tells them apart.
    label = view.known[verified].label(device)
    return label if verified == column else label.removeprefix("measured ")
