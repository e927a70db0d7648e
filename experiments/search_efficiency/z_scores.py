"""Whether the uncertainty of the surrogate of `guided` is calibrated, in large spaces.

    python experiments/search_efficiency/z_scores.py

A z-score is the observed error minus the predicted one, by the predicted standard deviation, on the
surrogate's scale. It is told of every trial before the surrogate has learned it, and of the members
of the true front at some budgets. Both come from the recorded runs of `guided` on `accel_whole`,
and from searches of functions that are drawn from the surrogate's own prior. There the model is
right, so what is seen there comes from the choice of the best among very many.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from _shared.markdown import markdown
from _shared.tabular import published_problem, published_trial
from _shared.whole_spaces import Archive, neighbours
from campaign import RunRecord

import search_spaces
from nas.core.prediction import FloatArray
from nas.network.space import SearchSpace
from nas.search import algorithms
from nas.search.surrogates.features import Features
from nas.search.surrogates.gaussian_process import Covariance, matern, squared_distances
from nas.search.surrogates.surrogate import Surrogate
from nas.tables import MILLIONS, IntArray

HERE = Path(__file__).resolve().parent

BUDGETS = (25, 50, 100, 200)
FIRST = 20
"""Trials before which nothing is predicted."""

SPACES = ("mnasnet", "vit")
DRAWS = 3
"""Functions that are drawn for each space."""

CENTRES = 2000
"""Points that carry the smooth part of such a function."""

SPREAD = 0.1
"""Of a drawn function's logarithm, per unit of the prior."""


@dataclasses.dataclass(frozen=True)
class Searched:
    """A search that has been made.

    Attributes:
        name: Of the task.
        space: Searched.
        genotypes: In the order in which they were evaluated, shape `(n, g)`.
        errors: Of these, shape `(n,)`.
        front: Genotypes of the true front, shape `(m, g)`.
        front_errors: Of these, shape `(m,)`.
    """

    name: str
    space: SearchSpace
    genotypes: IntArray
    errors: FloatArray
    front: IntArray
    front_errors: FloatArray


def recorded() -> Iterator[Searched]:
    """Yield the recorded runs of `guided` on whole spaces."""
    for key, entry in RunRecord(HERE / "runs").entries().items():
        if (key.contender, key.task.setting) == ("guided", "accel_whole"):
            benchmark, rows = key.task.benchmark, list(entry.run.rows)
            members = key.task.front("unclipped").tolist()
            yield Searched(
                "accel_whole",
                benchmark.problem.space,
                benchmark.genotypes(rows),
                benchmark.values(rows)[:, 0],
                benchmark.genotypes(members),
                benchmark.values(members)[:, 0],
            )


def drawn(name: str, seed: int) -> Searched:
    """Search a function that is drawn from the surrogate's prior, beside multiply-accumulates."""
    space = search_spaces.get(name, input_shape=(3, 64, 64), num_classes=10)
    features, rng = Features(space), np.random.default_rng(seed)
    prior = Covariance.typical(features.groups)
    centres = features(space.samples(CENTRES, rng))
    weights = prior.linear * rng.normal(size=centres.shape[1])
    # A draw at the centres, continued by its posterior mean.
    scale = prior.lengths[0]
    smooth = matern(squared_distances(centres / scale, centres / scale))
    smooth[np.diag_indices(len(centres))] += 1e-6
    values = np.linalg.cholesky(smooth) @ rng.normal(size=len(centres))
    carried = prior.smooth * np.linalg.solve(smooth, values)

    def error_and_cost(genotypes: IntArray) -> FloatArray:
        canonical = space.canonicalise(genotypes)
        rows = features(canonical)
        near = matern(squared_distances(rows / scale, centres / scale))
        error = 30 * np.exp(SPREAD * (rows @ weights + near @ carried))
        return np.stack([error, space.costs(canonical)["macs_m"].to_numpy()], axis=1)

    front = Archive(error_and_cost)
    front.add(space.canonicalise(space.samples(20_000, rng)))
    explored: set[tuple[int, ...]] = set()
    while left := [m for m in map(tuple, front.genotypes.tolist()) if m not in explored]:
        explored.update(left[:50])
        near = [neighbours(np.array(m), space.cardinalities, 1) for m in left[:50]]
        front.add(np.unique(space.canonicalise(np.vstack(near)), axis=0))
    problem = published_problem(
        space,
        {"macs_m": MILLIONS["macs_m"]},
        ["macs_m"],
        [],
        lambda _, rows: error_and_cost(space.matrix(rows))[:, 1],
    )
    search = algorithms.get("guided").start(problem, seed)
    genotypes, points = [], []
    for number in range(BUDGETS[-1]):
        [genotype] = search.ask(1)
        point = error_and_cost(np.array([genotype]))[0]
        search.tell([published_trial(problem, number, genotype, point, 1.0)])
        genotypes.append(genotype)
        points.append(point)
    return Searched(
        f"own prior, {name}",
        space,
        np.array(genotypes),
        np.array(points)[:, 0],
        front.genotypes,
        front.points[:, 0],
    )


def z_scores(searched: Searched) -> dict[str, float | str]:
    """Return mean and deviation of the z-scores of new trials, and the mean of the front's."""
    features = Features(searched.space)
    every, front = features(searched.genotypes), features(searched.front)
    surrogate, errors, z = Surrogate(features.groups), searched.errors, []
    row: dict[str, float | str] = {"task": searched.name}
    nothing = np.zeros((0, every.shape[1]))
    for count in range(FIRST, BUDGETS[-1] + 1):
        surrogate.learn(every[:count], np.ones(count), errors[:count], nothing)
        if count in BUDGETS:
            row[f"front at {count}"] = float(_z(surrogate, front, searched.front_errors).mean())
        if count < BUDGETS[-1]:
            z += _z(surrogate, every[[count]], errors[[count]]).tolist()
    return {**row, "new trials": float(np.mean(z)), "their deviation": float(np.std(z))}


def _z(surrogate: Surrogate, features: FloatArray, errors: FloatArray) -> FloatArray:
    mean, std = surrogate.predict(features)
    z: FloatArray = (surrogate.scale(errors) - mean) / std
    return z


def main() -> None:
    """Print one row a task: means over its runs."""
    runs = list(recorded())
    if not runs:
        sys.exit("no runs of guided on accel_whole are recorded: run.py guided --tasks accel_whole")
    runs += [drawn(name, seed) for name in SPACES for seed in range(DRAWS)]
    table = pd.DataFrame([z_scores(searched) for searched in runs])
    means = table.groupby("task", sort=False).mean().round(2).reset_index()
    means.insert(1, "runs", table.groupby("task", sort=False).size().to_numpy())
    sys.stdout.write(markdown(means) + "\n")


if __name__ == "__main__":
    main()
