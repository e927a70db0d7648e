"""Few-shot transfer on published tables, after HELP (Lee et al., NeurIPS 2021).

Run `python experiments/few_shot_transfer/run.py`; it writes `results.json`, `results.csv` and
`few_shot.png` beside this file.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from tables import Table, fbnet, nasbench201, ofa

from latency_predictors.calibration.few_shot import Columns, FewShotModel, Matrix, design
from nas.core.files import write_json_atomically
from nas.core.prediction import FloatArray
from nas.devices.measuring.environment import describe_host
from nas.network.blocks import IntArray
from nas.study.record import versions

FOLDER = Path(__file__).parent
DRAWS = 10
SAMPLES = (10, 20)
POOL = 900
"""Random architectures of which the samples are taken; another pool in every draw."""

QUERIES = 1000
"""Rows that HELP scores, after those that it knows; no sample is taken of them."""

SEED, VALIDATION_SEED = 20211206, 1
SPACES = {"nasbench201": nasbench201, "fbnet": fbnet, "ofa": ofa}
HELP = {
    "nasbench201": {
        "titan_rtx_256": 0.987, "gold_6226": 0.989, "pixel2": 0.802, "raspi4": 0.890,
        "eyeriss": 0.940, "fpga": 0.985, "mean": 0.932,
    },
    "fbnet": {"raspi4": 0.887, "eyeriss": 0.943, "fpga": 0.892, "mean": 0.910},
    "ofa": {},
}  # fmt: skip
"""HELP with ten samples: Tables 2 and 3 of its repository's README."""


def ridge(references_ms: FloatArray, chosen: list[int], latency_ms: FloatArray) -> FloatArray:
    """Predict by ridge regression on the measured latencies of the reference devices."""
    inputs = (references_ms - references_ms.mean(axis=0)) / references_ms.std(axis=0)
    model = RidgeCV(np.logspace(-3, 3, 13)).fit(inputs[chosen], latency_ms[chosen])
    predicted: FloatArray = model.predict(inputs)
    return predicted


def scores(table: Table, device: str, predicted: FloatArray, chosen: list[int]) -> dict[str, float]:
    """Return Spearman correlations: over all that was not measured, and as HELP scores.

    HELP leaves out the fastest and the slowest tenth of its queries.
    """
    truth = table.latency_ms[device]
    rest = np.setdiff1d(np.arange(len(truth)), chosen)
    queries = _queries(table)
    cut = len(queries) // 10
    middle = queries[np.argsort(truth[queries], kind="stable")][cut:-cut]
    return {
        "spearman": float(spearmanr(predicted[rest], truth[rest]).statistic),
        "spearman_help_queries": float(spearmanr(predicted[middle], truth[middle]).statistic),
    }


def _queries(table: Table) -> IntArray:
    return np.arange(table.known, table.known + QUERIES)


def transfer(
    table: Table, device: str, prepared: tuple[Columns, Matrix], references: list[str], seed: int
) -> list[dict[str, Any]]:
    """Treat `device` as new: predict it from `references` in every draw."""
    columns, rows = prepared
    truth = table.latency_ms[device]
    references_ms = np.stack([table.latency_ms[name] for name in references], 1)
    records = []
    candidates = np.setdiff1d(np.arange(len(truth)), _queries(table))
    for draw in range(DRAWS):
        pool = np.random.default_rng([seed, draw]).choice(candidates, POOL, replace=False)
        telling = pool[design(columns, rows[pool], max(SAMPLES))]
        for samples in SAMPLES:
            ways: dict[str, tuple[list[int], FloatArray]] = {}
            for sampling, order in (("chosen", telling), ("random", pool)):
                chosen = order[:samples].tolist()
                model = FewShotModel.fit(columns, rows[chosen], truth[chosen])
                ways[f"transfer, {sampling}"] = chosen, model(rows)[:, 0]
                ways[f"ridge, {sampling}"] = chosen, ridge(references_ms, chosen, truth)
            for way, (chosen, predicted) in ways.items():
                record = {"device": device, "samples": samples, "draw": draw, "way": way}
                records.append(record | scores(table, device, predicted, chosen))
    return records


def validate(table: Table) -> list[dict[str, Any]]:
    """Take each reference device for new in turn: what settings were chosen by."""
    records = []
    for device in table.references:
        others = [name for name in table.references if name != device]
        records += transfer(table, device, table.columns(others), others, VALIDATION_SEED)
    return records


def test(table: Table) -> list[dict[str, Any]]:
    """Predict the test devices, and those devices that HELP has no role for."""
    references = list(table.references)
    prepared = table.columns(references)
    records = []
    for device in table.latency_ms:
        if device not in references:
            records += transfer(table, device, prepared, references, SEED)
    return records


def summarise(records: pd.DataFrame) -> pd.DataFrame:
    """Return means over the draws and their standard deviations."""
    keys = ["space", "role", "additive", "device", "samples", "way"]
    figures = ["spearman", "spearman_help_queries"]
    table = records.groupby(keys)[figures].agg(["mean", "std"])
    table.columns = ["_".join(column) for column in table.columns]
    return table.reset_index()


def means(summary: pd.DataFrame) -> pd.DataFrame:
    """Return means over the devices of a role: all, measured ones, sums of a table."""
    kinds = {
        "all": summary,
        "measured": summary[~summary.additive],
        "additive": summary[summary.additive],
    }
    figures = ["spearman_mean", "spearman_help_queries_mean"]
    parts = [
        part.groupby(["space", "role", "samples", "way"])[figures].mean().assign(devices=kind)
        for kind, part in kinds.items()
        if len(part)
    ]
    return pd.concat(parts).reset_index()


def draw_figure(summary: pd.DataFrame, path: Path) -> None:
    """Draw ten samples on every test device beside HELP."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    spaces = ("nasbench201", "fbnet")
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 3.4), sharey=True, gridspec_kw={"width_ratios": (6, 3)}
    )
    shown = summary[(summary.role == "test") & (summary.samples == 10)]
    for axis, space in zip(axes, spaces, strict=True):
        part = shown[shown.space == space].pivot_table("spearman_mean", "device", "way")
        part["HELP, as published"] = pd.Series(HELP[space])
        order = ["HELP, as published", "ridge, random", "transfer, random", "transfer, chosen"]
        part = part.loc[[name for name in HELP[space] if name != "mean"], order]
        part.plot.bar(ax=axis, width=0.8, rot=20, legend=False, title=space)
        axis.set(xlabel="", ylabel="Spearman, 10 samples", ylim=(0.7, 1.0))
        axis.grid(axis="y", alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=4)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Validate on the reference devices, test on the others, write everything down."""
    started = time.perf_counter()
    parts = []
    for space, load in SPACES.items():
        table = load()
        part = pd.DataFrame(validate(table) + test(table))
        part["space"], part["additive"] = space, part.device.isin(table.additive)
        roles = dict.fromkeys(table.references, "reference") | dict.fromkeys(table.tests, "test")
        part["role"] = part.device.map(roles).fillna("other")
        parts.append(part)
    summary = summarise(pd.concat(parts))
    overall = means(summary)
    print(overall.round(4).to_string())
    shown = summary[(summary.role == "test") & (summary.samples == min(SAMPLES))]
    print(shown.round(4).to_string())
    summary.round(4).to_csv(FOLDER / "results.csv", index=False)
    draw_figure(summary, FOLDER / "few_shot.png")
    write_json_atomically(
        FOLDER / "results.json",
        {
            "draws": DRAWS,
            "pool": POOL,
            "help": HELP,
            "means": overall.round(4).to_dict("records"),
            "minutes": round((time.perf_counter() - started) / 60, 1),
            "versions": versions(),
            "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
        },
    )


if __name__ == "__main__":
    main()
