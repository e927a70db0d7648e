"""What the runs say: scores of each, means over devices and seeds, paired tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from _shared.table_task import TableTask
from campaign import BenchmarkRun, RecordedRun
from scipy.stats import wilcoxon

BUDGETS = (50, 100, 200, 350)
"""Distinct evaluations at which contenders are compared."""

FRONT_BUDGET = 200
"""Distinct evaluations at which the share of the front that was found is told."""

STEP = 10
"""Distinct evaluations between two points of a curve."""

PAIR = ["devices", "seed"]
"""What two runs share that are compared."""


def scores(entries: Iterable[RecordedRun]) -> pd.DataFrame:
    """Return the scores of every run.

    Returns:
        One row a run: `method`, `task`, `devices`, `seed`, `distinct`, `asked`,
        `overhead_ms` and `overhead_at_end_ms` per distinct evaluation, `hypervolume_N` and
        `front_N` for every budget `N`; NaN where the run was not taken as far.
    """
    return pd.DataFrame([_score(entry) for entry in entries])


def _score(entry: RecordedRun) -> dict[str, Any]:
    task, run = entry.key.task, entry.run
    row: dict[str, Any] = {
        "method": entry.key.contender,
        "task": task.name,
        "devices": "+".join(task.devices),
        "seed": entry.key.seed,
        "distinct": len(run.rows),
        "asked": run.asked,
        "overhead_ms": 1000 * run.seconds,
        "overhead_at_end_ms": 1000 * run.seconds_at_end,
    }
    for budget in BUDGETS:
        taken = budget <= entry.evaluations
        found = run.rows[:budget]
        row[f"hypervolume_{budget}"] = task.hypervolume_ratio(found) if taken else math.nan
        row[f"front_{budget}"] = task.front_share(found) if taken else math.nan
    return row


def curve(run: BenchmarkRun, task: TableTask, until: int) -> pd.DataFrame:
    """Return how a run got on.

    Args:
        run: Which one; if it was stuck, it stays where it was.
        task: Of the run.
        until: Last number of evaluations.

    Returns:
        Columns `evaluations`, `hypervolume` (ratio) and `front` (share).
    """
    at = range(STEP, until + 1, STEP)
    return pd.DataFrame(
        {
            "evaluations": list(at),
            "hypervolume": [task.hypervolume_ratio(run.rows[:n]) for n in at],
            "front": [task.front_share(run.rows[:n]) for n in at],
        }
    )


def summary(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the means of one task's runs, and tests against one method.

    The deviation is that over seeds of the mean over devices. The test is Wilcoxon's signed-rank
    test, two-sided, on the differences of the hypervolume ratio between the reference's run and
    the method's on the same devices with the same seed; every device and seed is a pair.

    Args:
        runs: Of one task, as `scores` returns them.
        reference: The method that all others are tested against.

    Returns:
        One row a method, the best at the largest budget first: `method`, `runs`, `seeds`, for
        every budget `N` `hypervolume_N`, `hypervolume_N_std`, `gap_N` (1 - ratio), `front_N`,
        `pairs`, `gain_N` (mean difference, reference less method) and `p_N`; `overhead_ms` and
        `overhead_at_end_ms`.
    """
    rows = [
        _summarise(method, of_method, runs[runs["method"] == reference])
        for method, of_method in runs.groupby("method", sort=False)
    ]
    table = pd.DataFrame(rows)
    keys = [f"hypervolume_{budget}" for budget in reversed(BUDGETS)]
    return table.sort_values(keys, ascending=False, ignore_index=True)


def _summarise(method: Any, runs: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method,
        "runs": len(runs),
        "seeds": runs["seed"].nunique(),
    }
    for budget in BUDGETS:
        column = f"hypervolume_{budget}"
        mean = runs[column].mean()
        row[column] = mean
        row[f"{column}_std"] = runs.groupby("seed")[column].mean().std()
        row[f"gap_{budget}"] = 1 - mean
        row[f"front_{budget}"] = runs[f"front_{budget}"].mean()
    pairs = runs.merge(reference, on=PAIR, suffixes=("", "_reference"))
    row["pairs"] = len(pairs)
    for budget in BUDGETS:
        column = f"hypervolume_{budget}"
        gains = (pairs[f"{column}_reference"] - pairs[column]).dropna().to_numpy()
        row[f"gain_{budget}"] = float(gains.mean()) if len(gains) else math.nan
        row[f"p_{budget}"] = paired_p(gains)
    for column in ("overhead_ms", "overhead_at_end_ms"):
        row[column] = runs[column].mean()
    return row


def paired_p(gains: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the p value of Wilcoxon's signed-rank test, two-sided; NaN where all are equal."""
    differences = np.asarray(gains, float)
    if not differences.any():
        return math.nan
    return float(wilcoxon(differences).pvalue)
