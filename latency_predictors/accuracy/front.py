"""Networks near the front of a search."""

from __future__ import annotations

import numpy as np

from nas.core.prediction import LatencyPredictor
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

GENERATIONS = 30
POPULATION = 512


def near_front(
    space: SearchSpace, predictor: LatencyPredictor, n: int, rng: np.random.Generator
) -> list[Genotype]:
    """Return networks with many MACs for their predicted latency: where a search ends up.

    Evolution by non-dominated sorting of predicted latency against MACs; where the predictor
    errs, a search moves to, so these are harder than random networks.
    """
    population = space.samples(POPULATION, rng)
    for _ in range(GENERATIONS):
        parents = population[_fronts(space, predictor, population)[: POPULATION // 4]]
        children = [space.mutate(parent, rng, genes=2) for parent in parents.tolist()]
        pairs = parents[rng.integers(len(parents), size=(len(parents), 2))].tolist()
        mixed = [space.crossover(mother, father, rng) for mother, father in pairs]
        population = np.unique(np.vstack([parents, children, mixed]), axis=0)
    best = population[_fronts(space, predictor, population)[: 4 * n]]
    by_latency = best[np.argsort(predictor.predict(best).mean_ms)]
    spread = by_latency[np.linspace(0, len(by_latency) - 1, n).round().astype(int)]
    return list(dict.fromkeys(tuple(row) for row in spread.tolist()))


def _fronts(space: SearchSpace, predictor: LatencyPredictor, genotypes: IntArray) -> IntArray:
    """Return the positions of genotypes, non-dominated ones first, front by front."""
    latency_ms = predictor.predict(genotypes).mean_ms
    macs = space.costs(genotypes)["macs_m"].to_numpy()
    left = np.lexsort([-macs, latency_ms])
    ordered: list[int] = []
    while len(left):
        most = np.maximum.accumulate(np.concatenate([[-np.inf], macs[left][:-1]]))
        front = macs[left] > most
        ordered.extend(left[front].tolist())
        left = left[~front]
    return np.array(ordered)
