from __future__ import annotations

import math
from dataclasses import replace

import contenders
import numpy as np
import pandas as pd
import pytest
from _shared.table_task import MEASURES, TableTask
from campaign import BenchmarkRun, RecordedRun, RunKey
from search_report import mixed
from summary import BUDGETS, curve, paired_p, scores, summary

TASK = TableTask("cifar10", ("pixel2",))


def entry(method: str, seed: int, rows: tuple[int, ...], evaluations: int) -> RecordedRun:
    made = BenchmarkRun(rows=rows, asked=len(rows), seconds=0.002, seconds_at_end=0.003)
    return RecordedRun(RunKey(method, TASK, seed), {}, {}, evaluations, made)


def test_budgets_that_were_not_taken_have_no_score() -> None:
    front = tuple(TASK.front().tolist())
    [stuck, short] = scores([entry("stuck", 0, front, 350), entry("short", 0, front, 100)]).to_dict(
        "records"
    )
    # A run that was stuck stays where it was.
    assert stuck["clipped_350"] == pytest.approx(1)
    assert stuck["front_200"] == 1
    assert short["clipped_100"] == pytest.approx(1)
    assert math.isnan(short["clipped_200"])
    assert stuck["overhead_ms"] == pytest.approx(2)


def test_a_mean_over_runs_of_different_code_is_told() -> None:
    runs = [entry("guided", seed, (0,), 1) for seed in range(3)]
    assert mixed(runs) == []
    changed = replace(runs[0], versions={"nas.search": "0123456789ab"})
    [line] = mixed([changed, *runs[1:]])
    assert "guided on cifar10" in line
    versions = contenders.get("guided").versions
    assert versions == contenders.get("nsga2").versions != {}


def test_a_curve_never_falls() -> None:
    rows = tuple(np.random.default_rng(0).permutation(15_625)[:100].tolist())
    made = curve(entry("any", 0, rows, 100).run, TASK, 100)
    assert made["evaluations"].tolist() == list(range(10, 101, 10))
    assert made["clipped"].is_monotonic_increasing
    assert made["unclipped"].is_monotonic_increasing
    assert made["front"].is_monotonic_increasing


def test_pairs_are_runs_on_one_device_with_one_seed() -> None:
    rows = [
        {"method": method, "costs": device, "seed": seed, "overhead_ms": 1.0}
        | {"overhead_at_end_ms": 1.0}
        | {f"{m}_{n}": 0.9 + gain + 0.01 * seed for n in BUDGETS for m in MEASURES}
        | {f"front_{n}": 0.5 for n in BUDGETS}
        | {f"cheapest_{n}": 2.0 ** (2 * seed) for n in BUDGETS}
        for method, gain in (("guided", 0.05), ("other", 0.0))
        for device in ("a", "b")
        for seed in (0, 1, 2)
        if not (method == "other" and seed == 2)
    ]
    table = summary(pd.DataFrame(rows), "guided").set_index("method")
    assert table.index.tolist() == ["guided", "other"]
    assert table.loc["other", "pairs"] == 4
    assert table.loc["other", "unclipped_50_gain"] == pytest.approx(0.05)
    assert table.loc["other", "clipped_50_least"] == pytest.approx(0.05)
    assert table.loc["guided", "cheapest_50"] == pytest.approx(4)
    assert table.loc["other", "seeds"] == 2
    assert table.loc["guided", "clipped_50"] == pytest.approx(0.96)
    assert table.loc["guided", "clipped_50_std"] == pytest.approx(0.01)
    assert math.isnan(table.loc["guided", "clipped_50_p"])


def test_wilcoxon_by_hand() -> None:
    # All 5 gains positive: 2 of the 2^5 assignments of signs are as extreme.
    assert paired_p([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)
    assert math.isnan(paired_p([0.0, 0.0]))
    assert math.isnan(paired_p([]))
