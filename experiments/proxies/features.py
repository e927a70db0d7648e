"""Whether scores of proxies tell the search's surrogate more than genes and cells do.

Run `python experiments/proxies/features.py` after `run.py`. From a few cells of NAS-Bench-201 that
`scores.csv` has, `guided`'s surrogate learns their published errors on CIFAR-10, without and with
scores as further features, and predicts those of the other cells. `features.md` gets Kendall's tau,
as means over random choices of the cells, and the mean difference to none with its 95 % interval.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from run import EPOCHS, SCORES
from scipy.stats import kendalltau, norm

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

import search_spaces
from nas import tables
from nas.core.prediction import FloatArray
from nas.search.surrogates.features import Features, Group
from nas.search.surrogates.surrogate import Surrogate

HERE = Path(__file__).resolve().parent
KNOWN = (10, 20, 40, 80)
REPEATS = 20
CHOICES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "az_nas": ("az_nas",),
    "synflow": ("synflow",),
    "naswot": ("naswot",),
    "all": ("az_nas", "grad_norm", "naswot", "snip", "swap", "synflow", "zico"),
}


def scores() -> pd.DataFrame:
    """Return the scores on random images, a row a cell and a column a proxy's term, as ranks."""
    rows = pd.read_csv(SCORES)
    rows = rows[(rows["images"] == "random") & (rows["seed"] == 0)]
    table = rows.pivot_table(index="cell", columns=["proxy", "term"], values="score").dropna()
    return table.rank(pct=True)


def main() -> None:
    """Write the table."""
    found = scores()
    table = tables.get("nasbench201")
    space = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    genotypes = space.canonicalise(np.asarray(table.genotypes)[found.index])
    errors = np.asarray(table.error("cifar10", EPOCHS), float)[found.index]
    features = Features(space)
    cells = features(genotypes)
    taus: dict[tuple[int, str], list[float]] = {}
    for known in KNOWN:
        for repeat in range(REPEATS):
            order = np.random.default_rng(repeat).permutation(len(errors))
            learnt, rest = order[:known], order[known:]
            for name, proxies in CHOICES.items():
                columns = found[[c for c in found if c[0] in proxies]].to_numpy()
                inputs, groups = extended(cells, features.groups, columns)
                surrogate = Surrogate(groups)
                full = np.ones(known)
                surrogate.learn(inputs[learnt], full, errors[learnt], inputs[:0])
                predicted, _ = surrogate.predict(inputs[rest])
                tau = float(kendalltau(predicted, errors[rest]).statistic)
                taus.setdefault((known, name), []).append(tau)
    rows = []
    for known in KNOWN:
        for name in CHOICES:
            own = np.array(taus[known, name])
            gain = own - np.array(taus[known, "none"])
            half = norm.ppf(0.975) * gain.std(ddof=1) / np.sqrt(REPEATS)
            rows.append(
                {
                    "known cells": known,
                    "proxies": name,
                    "tau": f"{own.mean():.3f}",
                    "more than without": f"{gain.mean():+.3f} ± {half:.3f}",
                }
            )
    text = markdown(pd.DataFrame(rows))
    (HERE / "features.md").write_text(text + "\n")
    print(text)


def extended(
    cells: FloatArray, groups: tuple[Group, ...], columns: FloatArray
) -> tuple[FloatArray, tuple[Group, ...]]:
    """Return features with a further group of columns, standardised as the others are."""
    if not columns.shape[1]:
        return cells, groups
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0) / np.sqrt(columns.shape[1])
    start = cells.shape[1]
    own = Group("proxies", slice(start, start + columns.shape[1]))
    return np.hstack([cells, scaled]), (*groups, own)


if __name__ == "__main__":
    main()
