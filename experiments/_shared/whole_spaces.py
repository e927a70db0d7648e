"""The true fronts of whole spaces, as their surrogates see them: writes `whole_spaces.json`.

    python experiments/_shared/whole_spaces.py

Pareto local search (Paquete et al., 2004) from `SEEDS` random starts: every member of the archive
is changed in each gene, then in each pair of genes, until nothing that is found is new to the
front. The fronts of all starts are merged. Bounds come from the front and from random genotypes. A
limit on the cost that is an objective leaves that part of the same front which keeps it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np

from _shared.surrogate_benchmark import SurrogateBenchmark
from _shared.table_task import SETTINGS, WHOLE_SPACES, Bounds, Setting
from nas.core.prediction import FloatArray
from nas.results.hypervolume import hypervolume
from nas.tables import IntArray

SEEDS = 5
STARTS = 20_000
"""Random genotypes whose front a search starts from."""

RANDOM = 1_000_000
"""Random genotypes from which bounds and limits are taken."""

MEMBERS_AT_ONCE = 50


def searched(benchmark: SurrogateBenchmark, seed: int) -> IntArray:
    """Return the genotypes of the front that one search finds, shape `(n, g)`."""
    sizes = benchmark.problem.space.cardinalities
    front = Archive(benchmark.values_of)
    front.add(np.random.default_rng(seed).integers(0, sizes, (STARTS, len(sizes))))
    for changes in (1, 2):
        explored: set[tuple[int, ...]] = set()
        while members := [m for m in map(tuple, front.genotypes.tolist()) if m not in explored]:
            chosen = members[:MEMBERS_AT_ONCE]
            explored.update(chosen)
            front.add(np.vstack([neighbours(np.array(m), sizes, changes) for m in chosen]))
    return front.genotypes


class Archive:
    """Genotypes that no other one known dominates, by error and one cost."""

    def __init__(self, values: Callable[[IntArray], FloatArray]) -> None:
        self._values = values
        self.genotypes: IntArray = np.zeros((0, 0), np.int64)
        self.points: FloatArray = np.zeros((0, 2))

    def add(self, genotypes: IntArray) -> None:
        """Take up those that are not dominated; of equal points, the first in order."""
        points = self._values(genotypes)
        if len(self.points):
            genotypes = np.vstack([self.genotypes, genotypes])
            points = np.vstack([self.points, points])
        order = np.lexsort((points[:, 0], points[:, 1]))
        least = np.minimum.accumulate(points[order, 0])
        kept = order[np.concatenate([[True], points[order[1:], 0] < least[:-1]])]
        self.genotypes, self.points = genotypes[kept], points[kept]


def neighbours(genotype: IntArray, sizes: tuple[int, ...], changes: int) -> IntArray:
    """Return all genotypes that differ in so many genes from one, shape `(n, g)`."""
    return np.array(list(_changed(genotype, sizes, changes)), np.int64)


def _changed(genotype: IntArray, sizes: tuple[int, ...], changes: int) -> Iterator[IntArray]:
    for genes in combinations(range(len(sizes)), changes):
        for shifts in np.ndindex(*(sizes[gene] - 1 for gene in genes)):
            new = genotype.copy()
            for gene, shift in zip(genes, shifts, strict=True):
                new[gene] = (new[gene] + shift + 1) % sizes[gene]
            yield new


def found(setting: Setting, cost: str) -> tuple[SurrogateBenchmark, IntArray]:
    """Return the front of the error and one cost, and say how well the searches agree."""
    benchmark = SurrogateBenchmark.load(setting.table, setting.dataset, [cost])
    fronts = [searched(benchmark, seed) for seed in range(SEEDS)]
    merged = Archive(benchmark.values_of)
    for front in fronts:
        merged.add(front)
    whole = set(map(tuple, merged.genotypes.tolist()))
    reference = merged.points.max(axis=0)
    most = hypervolume(merged.points, reference)
    for seed, front in enumerate(fronts):
        share = len(whole & set(map(tuple, front.tolist()))) / len(whole)
        part = hypervolume(benchmark.values_of(front), reference) / most
        sys.stdout.write(
            f"{cost}, start {seed}: {share:.1%} of {len(whole)} members, hypervolume {part:.6f}\n"
        )
    return benchmark, merged.genotypes


def main() -> None:
    """Search every whole space and write what tasks need."""
    stored = {}
    fronts: dict[tuple[str, str, str], tuple[SurrogateBenchmark, IntArray]] = {}
    for name, setting in SETTINGS.items():
        for cost in setting.costs if setting.whole else ():
            key = (setting.table, setting.dataset, cost)
            if key not in fronts:
                fronts[key] = found(setting, cost)
            benchmark, genotypes = fronts[key]
            space = benchmark.problem.space
            drawn = space.samples(RANDOM, np.random.default_rng(0))
            points, front = benchmark.values_of(drawn), benchmark.values_of(genotypes)
            limit = None
            if setting.feasible is not None:
                most = float(f"{np.quantile(points[:, 1], setting.feasible):.4g}")
                [_, objective] = benchmark.problem.objectives
                limit = f"{objective} <= {most}"
                points, kept = points[points[:, 1] <= most], front[:, 1] <= most
                front, genotypes = front[kept], genotypes[kept]
            useful = front[:, 0] < setting.worst_error
            of_random = Bounds.of(points, setting.worst_error)
            share = (points[:, 0] >= setting.worst_error).mean()
            sys.stdout.write(
                f"{name}, {cost}: {useful.sum()} useful members, limit {limit}, {share:.1%} of "
                f"{len(points)} random ones have a larger error than the reference\n"
            )
            stored[f"{name}+{cost}"] = {
                "limit": limit,
                "bounds": {
                    "lowest_error": float(front[:, 0].min()),
                    "cheapest": front[useful, 1:].min(axis=0).tolist(),
                    "percentile": of_random.percentile.tolist(),
                    "largest": of_random.largest.tolist() if limit is None else [most],
                },
                "front": [benchmark.row(tuple(g)) for g in genotypes[useful].tolist()],
            }
    WHOLE_SPACES.write_text(json.dumps(stored) + "\n", "utf-8")


if __name__ == "__main__":
    main()
