"""Pictures of how a study went: its progress, its predictor, and what its front prefers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nas.core.errors import HwnasError
from nas.core.space import Gene
from nas.results.frame import measured_in_search
from nas.results.page.contents import preferences, progress
from nas.results.plot import BLUE, GREY, is_wide
from nas.results.report import report_frame
from nas.results.study import StudyResults

MOST_GENES = 12
"""Those whose choices differ most between the front and all trials."""

DPI = 120
ROW_INCHES = 0.2
INTERVAL = 1.96
"""Standard deviations on either side of a 95 % interval."""


def progress_figure(study: StudyResults) -> Figure:
    """Draw the hypervolume of what the search saw over its trials and over time.

    It is a share of the box between zero and the reference point.

    Raises:
        HwnasError: The study cannot be read.
    """
    found = progress(study, study.trials())
    shares = [row["hypervolume"] for row in found]
    figure = Figure(figsize=(10, 4), dpi=DPI, layout="constrained")
    over_trials, over_time = figure.subplots(1, 2, sharey=True)
    over_trials.step([row["trials"] for row in found], shares, where="post", color=BLUE)
    over_trials.set(xlabel="trials", ylabel="hypervolume, as a share")
    minutes = [row["seconds"] / 60 for row in found]
    over_time.step(minutes, shares, where="post", color=BLUE)
    over_time.set(xlabel="minutes of search")
    for axes in (over_trials, over_time):
        _plain(axes)
    over_trials.set_title(study.name, loc="left")
    return figure


def predictor_figure(study: StudyResults) -> Figure:
    """Draw predicted over measured latencies, with the 95 % intervals of the predictions.

    What the search measured stands hollow, as the predictor has learned from it.

    Raises:
        HwnasError: The study cannot be read, or no architecture was both predicted and measured.
    """
    trials, names = study.trials(), ["latency_ms_measured", "latency_ms_predicted"]
    if not set(names) <= set(trials) or (both := trials.dropna(subset=names)).empty:
        line = "no architecture was both predicted and measured"
        raise HwnasError(
            f"study {study.name!r}: {line}; latency_ms must be an objective or limited"
        )
    learned = both["arch_id"].isin(list(measured_in_search(study.path)))
    figure = Figure(figsize=(6, 6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for rows, face, label in (
        (both[~learned], BLUE, "not seen by the predictor before"),
        (both[learned], "none", "measured during the search, and learned from"),
    ):
        if len(rows):
            axes.errorbar(
                rows[names[0]],
                rows[names[1]],
                yerr=INTERVAL * rows[f"{names[1]}_std"].fillna(0),
                fmt="o",
                color=BLUE,
                markerfacecolor=face,
                elinewidth=0.8,
                label=label,
            )
    ends = np.array([both[names].to_numpy().min(), both[names].to_numpy().max()])
    axes.plot(ends, ends, color=GREY, linestyle=":", label="equal")
    if is_wide(both[names[0]]):
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel="measured latency (ms)", ylabel="predicted latency (ms)")
    axes.set_title(study.name, loc="left")
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def genes_figure(study: StudyResults, genes: Sequence[Gene] = ()) -> Figure:
    """Draw how often choices are made on the front and in all full trials.

    Args:
        study: The study.
        genes: Of its space, for the names of the choices; without them choices have numbers.

    Raises:
        HwnasError: The study cannot be read, or has no front.
    """
    trials, front = study.trials(), report_frame(study)
    whole = trials[(trials["status"] == "complete") & (trials["fidelity"] == 1.0)]
    found = list(preferences(whole, front, study.record["genes"], genes))[:MOST_GENES]
    if not found:
        raise HwnasError(f"study {study.name!r}: there is no front yet")
    labels, shares = list[str](), list[tuple[float, float]]()
    for row in found:
        labels += [f"{row['gene']} = {choice}" for choice in row["choices"]]
        shares += zip(row["front"], row["trials"], strict=True)
    on_front, in_trials = (100 * np.array(shares)).T
    figure = Figure(figsize=(8, ROW_INCHES * len(labels) + 1.2), dpi=DPI, layout="constrained")
    axes, places = figure.add_subplot(), np.arange(len(labels))
    axes.barh(places - 0.2, on_front, 0.4, color=BLUE, label="on the front")
    axes.barh(places + 0.2, in_trials, 0.4, color=GREY, label="in full trials")
    axes.set_yticks(places, labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set(xlabel="share (%)")
    for end in np.cumsum([len(row["choices"]) for row in found])[:-1]:
        axes.axhline(end - 0.5, color="#e3e6e9", linewidth=0.8)
    axes.set_title(study.name, loc="left")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(color="#e3e6e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
