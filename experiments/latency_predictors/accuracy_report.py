"""The tables and figures of `run.py`, from the files that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from _shared.accuracy import accuracy_rows
from _shared.markdown import markdown
from matplotlib.figure import Figure
from rich.console import Console

ROWS = {
    "held_out": "fresh networks",
    "noise_ceiling": "second measurement of them",
    "near_front": "near the front",
}


def accuracy(summaries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the accuracies of every space, one row for each kind of network."""
    return pd.concat([accuracy_rows(summary, "networks", ROWS) for summary in summaries])


def costs(summaries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return what calibration and prediction cost, one row a space."""
    return pd.DataFrame(
        [
            {
                "space": summary["space"],
                "networks measured": summary["calibration_networks"],
                "calibration s": round(summary["calibration_seconds"]),
                "genotypes a second": f"{summary['genotypes_per_second']:,.0f}",
                "coverage of 90 % intervals": summary["coverage_percent"],
                "the same, mean over draws": summary["coverage_percent_over_draws"],
                "half width %": summary["interval_half_width_percent"],
                "not additive %, median / p95": " / ".join(
                    f"{summary['additivity'][key]:.2f}" for key in ("median_percent", "p95_percent")
                ),
            }
            for summary in summaries
        ]
    )


def curves(summaries: Sequence[dict[str, Any]], out: Path) -> pd.DataFrame:
    """Return the share within 5 % by predictor and number of samples, mean over draws."""
    frames = []
    for summary in summaries:
        curve = pd.read_csv(out / f"{summary['space']}_curve.csv")
        mean = curve.pivot_table("within_5_percent", "predictor", "samples", sort=False)
        frames.append(mean.reset_index().assign(space=summary["space"]))
    table = pd.concat(frames)
    return table[["space", "predictor", *(c for c in table if isinstance(c, int))]]


def print_tables(summaries: Sequence[dict[str, Any]], out: Path) -> None:
    """Print all tables, and write them to `tables.md`."""
    texts = [
        "Predicted against measured latency\n\n" + markdown(accuracy(summaries)),
        "Costs and intervals\n\n" + markdown(costs(summaries)),
        "Within 5 % by number of samples\n\n" + markdown(curves(summaries, out)),
    ]
    text = "\n\n".join(texts) + "\n"
    (out / "tables.md").write_text(text, "utf-8")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def draw(summaries: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw predicted against measured latencies and learning curves: `accuracy.png`."""
    figure = Figure(figsize=(4.2 * len(summaries), 8), layout="constrained")
    axes = figure.subplots(2, len(summaries), squeeze=False)
    for column, summary in enumerate(summaries):
        networks = pd.read_csv(out / f"{summary['space']}_networks.csv")
        upper, lower = axes[0][column], axes[1][column]
        for part, colour in (("held out", "C0"), ("near the front", "C1")):
            of_part = networks[networks["part"] == part]
            error = 100 * (of_part["latency_ms_predicted"] / of_part["latency_ms_measured"] - 1)
            upper.scatter(of_part["latency_ms_measured"], error, s=8, color=colour, label=part)
        again = networks[networks["part"] == "held out"]
        noise = 100 * (again["latency_ms_measured_again"] / again["latency_ms_measured"] - 1)
        upper.scatter(
            again["latency_ms_measured"], noise, s=4, color="0.6", label="measured again", zorder=0
        )
        upper.axhspan(-5, 5, color="0.93", zorder=-1)
        upper.set(xscale="log", xlabel="measured ms", title=summary["space"], ylim=(-15, 15))
        curve = pd.read_csv(out / f"{summary['space']}_curve.csv")
        for label, of_label in curve.groupby("predictor", sort=False):
            by_size = of_label.groupby("samples")["within_5_percent"].agg(["mean", "min", "max"])
            lower.plot(by_size.index, by_size["mean"], marker="o", markersize=3, label=label)
            lower.fill_between(by_size.index, by_size["min"], by_size["max"], alpha=0.12)
        lower.set(xscale="log", xlabel="measured networks", ylim=(0, 102))
    axes[0][0].set_ylabel("predicted against measured, %")
    axes[1][0].set_ylabel("fresh networks within 5 %, %")
    axes[0][0].legend(fontsize=7)
    axes[1][0].legend(fontsize=7)
    figure.savefig(out / "accuracy.png", dpi=110)
