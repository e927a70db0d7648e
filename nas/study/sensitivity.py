"""What each choice of each gene alone changes in a network: of a study that has tried them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nas.core.errors import HwnasError, UnknownNameError
from nas.core.trial import FULL
from nas.results.pictures import write_picture
from nas.results.study import StudyResults
from nas.study.record import NEIGHBOURS
from nas.study.recorded_space import recorded_space

DPI = 120
ROW_INCHES, COLUMN_INCHES, LABEL_INCHES = 0.26, 0.8, 2.6


def sensitivity(
    study: StudyResults, of: str = "base", *, allow_imports: bool = False
) -> pd.DataFrame:
    """Return what single choices change in a published network of a study's space.

    Args:
        study: Which has tried them, as with `search.warm_start=[base,"neighbours:base"]`.
        of: Name of the network.
        allow_imports: Whether to import the modules that the study names, which runs their code.

    Returns:
        A row for each network that differs in the choice of one gene, in the order of the genes:
        `gene`, `choice`, and of every objective its column and, with `_change` behind it, the
        difference from the network's own.

    Raises:
        UnknownNameError: The space has no such network.
        HwnasError: The study has not tried it, or none beside it; or it needs modules that are not
            imported yet, and `allow_imports` is not given.

    Example:
        >>> sensitivity(nas.open("small")).nlargest(5, "error_change")  # doctest: +SKIP
    """
    space = recorded_space(study, allow_imports)
    if of not in (references := space.references()):
        raise UnknownNameError("network", of, references)
    start = space.canonical(references[of])
    trials = study.trials()
    trials = trials[(trials["status"] == "complete") & (trials["fidelity"] == FULL)]
    known = {tuple(row["genotype"]): row for _, row in trials.iterrows()}
    fix = f"""search with 'search.warm_start=[{of},"{NEIGHBOURS}{of}"]'"""
    if study.record["constraints"]:
        fix += f", without limits that they break ({', '.join(study.record['constraints'])})"
    if start not in known:
        raise HwnasError(f"study {study.name!r}: has not tried {of}; {fix}")
    columns = list(study.columns.values())
    own, rows = known[start], []
    for genotype, row in known.items():
        differing = np.flatnonzero(np.array(genotype) != np.array(start))
        if len(differing) != 1:
            continue
        gene = space.genes[differing[0]]
        facts = {"gene": gene.name, "choice": gene.choices[genotype[differing[0]]]}
        changes = {f"{column}_change": row[column] - own[column] for column in columns}
        place = (int(differing[0]), genotype[differing[0]])
        rows.append((place, {**facts, **{c: row[c] for c in columns}, **changes}))
    if not rows:
        raise HwnasError(f"study {study.name!r}: has tried no neighbour of {of}; {fix}")
    return pd.DataFrame([facts for _, facts in sorted(rows, key=lambda each: each[0])])


def plot_sensitivity(found: pd.DataFrame, column: str, title: str, path: Path) -> None:
    """Draw how a column changes with every choice into a file, a panel a kind of gene.

    Args:
        found: What `sensitivity` returned.
        column: Such as `error`.
        title: Above the picture.
        path: Of the file.

    Raises:
        HwnasError: The file cannot be written.
    """
    kinds = found["gene"].str.rpartition(".")[2]
    panels = [found[kinds == kind] for kind in dict.fromkeys(kinds)]
    tallest = max(panel["gene"].nunique() for panel in panels)
    widths = [panel["choice"].nunique() * COLUMN_INCHES + LABEL_INCHES for panel in panels]
    size = (sum(widths) + 1.0, max(tallest * ROW_INCHES, 1.5) + 1.4)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title)
    worst = max(float(found[f"{column}_change"].max()), 1e-9)
    shown = figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
    for axes, panel in zip(shown, panels, strict=True):
        genes, choices = (_ordered(panel[name].tolist()) for name in ("gene", "choice"))
        grid = np.full((len(genes), len(choices)), np.nan)
        for _, row in panel.iterrows():
            change = row[f"{column}_change"]
            grid[genes.index(row["gene"]), choices.index(row["choice"])] = change
        axes.imshow(grid, cmap="cividis_r", vmin=0, vmax=worst, aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            if np.isfinite(value):
                ink = "white" if value > worst / 2 else "black"
                axes.text(j, i, f"{value:+.2f}", ha="center", va="center", color=ink, fontsize=7)
        axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
        layers = [str(gene).rpartition(".")[0] for gene in genes]
        axes.set_yticks(range(len(genes)), layers, fontsize=7)
        axes.set_xlabel(panel["gene"].iloc[0].rpartition(".")[2])
    write_picture(figure, path)


def _ordered(values: Sequence[object]) -> list[object]:
    return list(dict.fromkeys(values))
