"""What the runs say: scores of each, means over devices and seeds, paired tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from _shared.table_task import MEASURES, TableTask
from campaign import BenchmarkRun, RecordedRun
from scipy.stats import wilcoxon

BUDGETS = (25, 50, 100, 200, 350)
"""Distinct evaluations at which contenders are compared."""

FRONT_BUDGET = 200
"""Distinct evaluations at which the share of the front that was found is told."""

STEP = 10
"""Distinct evaluations between two points of a curve."""

PAIR = ["costs", "seed"]
"""What two runs share that are compared."""


def scores(entries: Iterable[RecordedRun]) -> pd.DataFrame:
    """Return the scores of every run.

    Returns:
        One row a run: `method`, `task`, `costs`, `seed`, `distinct`, `asked`,
        `overhead_ms` and `overhead_at_end_ms` per distinct evaluation; for every budget `N` the
        hypervolume ratio `M_N` by every measure `M` in `MEASURES`, `front_N`, and `cheapest_N`, the
        cost of the cheapest useful architecture by the true one; NaN where the run was not taken
        as far.
    """
    return pd.DataFrame([_score(entry) for entry in entries])


def _score(entry: RecordedRun) -> dict[str, Any]:
    task, run = entry.key.task, entry.run
    row: dict[str, Any] = {
        "method": entry.key.contender,
        "task": task.name,
        "costs": "+".join(task.costs),
        "seed": entry.key.seed,
        "distinct": len(run.rows),
        "asked": run.asked,
        "overhead_ms": 1000 * run.seconds,
        "overhead_at_end_ms": 1000 * run.seconds_at_end,
    }
    for budget in BUDGETS:
        taken = budget <= entry.evaluations
        found = run.rows[:budget]
        for measure in MEASURES:
            ratio = task.hypervolume_ratio(found, measure) if taken else math.nan
            row[f"{measure}_{budget}"] = ratio
        row[f"front_{budget}"] = task.front_share(found) if taken else math.nan
        row[f"cheapest_{budget}"] = task.cheapest_ratio(found) if taken else math.nan
    return row


def curve(run: BenchmarkRun, task: TableTask, until: int) -> pd.DataFrame:
    """Return how a run got on.

    Args:
        run: Which one; if it was stuck, it stays where it was.
        task: Of the run.
        until: Last number of evaluations.

    Returns:
        Columns `evaluations`, `clipped` and `unclipped` (hypervolume ratios), `front` (share).
    """
    at = range(STEP, until + 1, STEP)
    return pd.DataFrame(
        {
            "evaluations": list(at),
            **{
                measure: [task.hypervolume_ratio(run.rows[:n], measure) for n in at]
                for measure in ("clipped", "unclipped")
            },
            "front": [task.front_share(run.rows[:n]) for n in at],
        }
    )


def summary(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the means of one task's runs, and tests against one method.

    The deviation is that over seeds of the mean over costs. The test is Wilcoxon's signed-rank
    test, two-sided, on the differences of the hypervolume ratio between the reference's run and
    the method's on the same costs with the same seed; every cost and seed is a pair.

    Args:
        runs: Of one task, as `scores` returns them.
        reference: The method that all others are tested against.

    Returns:
        One row a method, the best at the largest budget first: `method`, `runs`, `seeds`,
        `pairs`, `overhead_ms` and `overhead_at_end_ms`; for every budget `N` `front_N`,
        `cheapest_N` (a geometric mean) and, of every measure `M`, `M_N`, `M_N_std`, `M_N_gain`
        (mean difference, reference less method), `M_N_least` (the smallest such mean of a cost)
        and `M_N_p`.
    """
    rows = [
        _summarise(method, of_method, runs[runs["method"] == reference])
        for method, of_method in runs.groupby("method", sort=False)
    ]
    table = pd.DataFrame(rows)
    keys = [f"clipped_{budget}" for budget in reversed(BUDGETS)]
    return table.sort_values(keys, ascending=False, ignore_index=True)


def _summarise(method: Any, runs: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method,
        "runs": len(runs),
        "seeds": runs["seed"].nunique(),
    }
    pairs = runs.merge(reference, on=PAIR, suffixes=("", "_reference"))
    row["pairs"] = len(pairs)
    for budget in BUDGETS:
        row[f"front_{budget}"] = runs[f"front_{budget}"].mean()
        row[f"cheapest_{budget}"] = math.exp(np.log(runs[f"cheapest_{budget}"]).mean())
        for measure in MEASURES:
            column = f"{measure}_{budget}"
            row[column] = runs[column].mean()
            row[f"{column}_std"] = runs.groupby("seed")[column].mean().std()
            gains = (pairs[f"{column}_reference"] - pairs[column]).dropna()
            row[f"{column}_gain"] = gains.mean()
            row[f"{column}_least"] = gains.groupby(pairs["costs"]).mean().min()
            row[f"{column}_p"] = paired_p(gains.to_numpy())
    for column in ("overhead_ms", "overhead_at_end_ms"):
        row[column] = runs[column].mean()
    return row


def paired_p(gains: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the p value of Wilcoxon's signed-rank test, two-sided; NaN where all are equal."""
    differences = np.asarray(gains, float)
    if not differences.any():
        return math.nan
    return float(wilcoxon(differences).pvalue)
