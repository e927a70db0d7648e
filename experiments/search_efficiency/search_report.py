"""The tables and the figure of `run.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contenders
import pandas as pd
from _shared.markdown import markdown
from campaign import RecordedRun
from contenders import REFERENCE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from summary import BUDGETS, FRONT_BUDGET, curve, scores, summary

SMALLEST_P = 1e-4
"""Below it, p values are not told apart."""

DECIMALS = "%.6g"

SAID = {
    "clipped": "share of the front's hypervolume, costs clipped and logarithmic",
    "unclipped": "share of the front's hypervolume, costs unclipped and logarithmic",
    "clipped_linear": "share of the front's hypervolume, costs clipped and linear",
    "unclipped_linear": "share of the front's hypervolume, costs unclipped and linear",
}
"""Every measure in words."""

TESTED = ("clipped", "unclipped")
"""Measures by which the reference is tested against the others."""


def write(entries: Sequence[RecordedRun], evaluations: int, out: Path) -> None:
    """Write `runs.csv`, `summary.csv`, `tables.md` and `hypervolume.png`; print the tables.

    Args:
        entries: All runs that are reported.
        evaluations: How far the figure's axis reaches.
        out: Folder.
    """
    of_runs = scores(entries)
    of_runs.to_csv(out / "runs.csv", index=False, float_format=DECIMALS)
    summaries = {
        str(task): summary(of_task, REFERENCE)
        for task, of_task in of_runs.groupby("task", sort=False)
    }
    frames = [table.assign(task=task) for task, table in summaries.items()]
    pd.concat(frames).to_csv(out / "summary.csv", index=False, float_format=DECIMALS)
    texts = [f"Caution: {line}" for line in mixed(entries)]
    for task, table in summaries.items():
        for measure, said in SAID.items():
            texts.append(f"{task}: {said}\n\n" + markdown(found(table, measure)))
        texts.append(
            f"{task}: what else was found, and how long it took\n\n" + markdown(others(table))
        )
        texts += [
            f"{task}: tests, {SAID[measure]}\n\n" + markdown(tests(table, measure))
            for measure in TESTED
        ]
    text = "\n\n".join(texts) + "\n"
    (out / "tables.md").write_text(text, "utf-8")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    draw(entries, evaluations, out / "hypervolume.png")


def mixed(entries: Sequence[RecordedRun]) -> list[str]:
    """Return a line for each method whose runs of one task were made by different code."""
    versions: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        place = versions.setdefault((entry.key.contender, entry.key.task.name), set())
        place.add(json.dumps(dict(entry.versions), sort_keys=True))
    return [
        f"{method} on {task}: its runs are of {len(several)} versions of the code; delete those of "
        f"earlier versions from runs/{method}.jsonl and run it again"
        for (method, task), several in versions.items()
        if len(several) > 1
    ]


def found(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the means and deviations of a measure for reading, one row a method."""
    return pd.DataFrame(
        [
            {"method": _label(row["method"]), "seeds": row["seeds"]}
            | {
                f"at {n}": _with_deviation(row[f"{measure}_{n}"], row[f"{measure}_{n}_std"])
                for n in BUDGETS
            }
            for row in table.to_dict("records")
        ]
    )


def others(table: pd.DataFrame) -> pd.DataFrame:
    """Return the cheapest useful architecture's cost, the front's share and the seconds."""
    return pd.DataFrame(
        [
            {"method": _label(row["method"])}
            | {f"cheapest at {n}": _ratio(row[f"cheapest_{n}"]) for n in BUDGETS}
            | {
                f"front at {FRONT_BUDGET}": _percent(row[f"front_{FRONT_BUDGET}"]),
                "ms a suggestion": f"{row['overhead_ms']:.1f}",
                "ms at the end": f"{row['overhead_at_end_ms']:.1f}",
            }
            for row in table.to_dict("records")
        ]
    )


def tests(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the reference's gains and p values against every other method, one row a method."""
    return pd.DataFrame(
        [
            {"method": _label(row["method"]), "pairs": row["pairs"]}
            | {f"gain at {n}": _number(row[f"{measure}_{n}_gain"]) for n in BUDGETS}
            | {f"least at {n}": _number(row[f"{measure}_{n}_least"]) for n in BUDGETS}
            | {
                f"p at {n}": _p(row[f"{measure}_{n}_p"], row[f"{measure}_{n}_gain"])
                for n in BUDGETS
            }
            for row in table.to_dict("records")
            if row["method"] != REFERENCE
        ]
    )


def draw(entries: Sequence[RecordedRun], evaluations: int, path: Path) -> None:
    """Draw what is missing of the hypervolume, and the front's share, against evaluations."""
    tasks = list(dict.fromkeys(entry.key.task.name for entry in entries))
    figure = Figure(figsize=(18, 4.5 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 3, squeeze=False)
    for sides, task in zip(axes, tasks, strict=True):
        _draw_task([entry for entry in entries if entry.key.task.name == task], sides)
        for side, measure in zip(sides, TESTED, strict=False):
            side.set(yscale="log", ylabel=f"1 - hypervolume ratio, costs {measure}", title=task)
        sides[-1].set(ylabel="share of the front found", title=task, ylim=(0, 1))
        for side in sides:
            side.set(xlabel="distinct evaluations", xlim=(0, evaluations))
            side.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _draw_task(entries: Sequence[RecordedRun], sides: Sequence[Axes]) -> None:
    methods = list(dict.fromkeys(entry.key.contender for entry in entries))
    for place, method in enumerate(methods):
        curves = [
            curve(entry.run, entry.key.task, entry.evaluations)
            for entry in entries
            if entry.key.contender == method
        ]
        mean = pd.concat(curves).groupby("evaluations").mean()
        style: dict[str, Any] = {
            "color": f"C{place % 10}",
            "linestyle": ("-", "--", ":")[place // 10 % 3],
            "linewidth": 2.4 if method == REFERENCE else 1.2,
        }
        for side, values in zip(sides, _curves(mean), strict=True):
            side.plot(mean.index, values, label=_label(method), **style)


def _curves(mean: pd.DataFrame) -> list[pd.Series[float]]:
    return [*(1 - mean[measure] for measure in TESTED), mean["front"]]


def _label(method: str) -> str:
    return contenders.get(method).label


def _with_deviation(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ({deviation:.4f})"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _p(p: float, gain: float) -> str:
    """Return a p value, with a minus where the method is better than the reference."""
    if math.isnan(p):
        return "-"
    text = f"< {SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"
    return text if gain > 0 else f"{text} (worse: {REFERENCE})"
