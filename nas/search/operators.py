"""Operators of pymoo on genes: mutation by kind of gene, and tournaments.

Parents exchange genes by pymoo's uniform crossover (`UX`), which suits every kind of gene: a child
has each of its choices from one of its parents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.selection.tournament import TournamentSelection

from nas.core.space import Gene
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

ORDINAL_DECAY = 0.5
"""How much less likely an ordinal gene moves by one choice further."""


class GeneMutation(Mutation):  # type: ignore[misc]
    """Replaces genes by another of their choices.

    Every other choice of a categorical gene is equally likely; of an ordinal one those nearby are,
    each `ORDINAL_DECAY` times as likely as the one before it.
    """

    def __init__(self, genes: Sequence[Gene], mutated_genes: float) -> None:
        """Mutate genes of a space.

        Args:
            genes: Of the space.
            mutated_genes: How many of them mutate, on average.
        """
        super().__init__()
        self._rate = min(1.0, mutated_genes / len(genes))
        self._cumulative = _cumulative(genes)

    def _do(
        self,
        problem: Problem,
        X: IntArray,  # noqa: N803 - pymoo's name
        *args: Any,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> IntArray:
        del problem, args, kwargs
        changed = random_state.random(X.shape) < self._rate
        rows = self._cumulative[np.arange(X.shape[1]), X]
        moved = (random_state.random(X.shape)[..., None] >= rows).sum(axis=-1)
        return np.where(changed, moved, X)


def _cumulative(genes: Sequence[Gene]) -> npt.NDArray[np.float64]:
    """Return what each choice of each gene mutates to.

    Returns:
        Cumulative probabilities, shape `(g, c, c)` with `c` the largest number of choices.
    """
    width = max(len(gene.choices) for gene in genes)
    choices = np.arange(width)
    distance = np.abs(choices[:, None] - choices)
    weights = np.zeros((len(genes), width, width))
    for weight, gene in zip(weights, genes, strict=True):
        size = len(gene.choices)
        if size == 1:  # it can only stay
            weight[:, 0] = 1.0
            continue
        weight[:, :size] = ORDINAL_DECAY ** distance[:, :size] if gene.ordinal else 1.0
        weight[distance == 0] = 0.0
    cumulative = weights.cumsum(axis=-1)
    return np.asarray(cumulative / cumulative[..., -1:])


def offspring(
    space: SearchSpace,
    parents: IntArray,
    count: int,
    rng: np.random.Generator,
    mutation: GeneMutation,
    crossover: UX,
) -> IntArray:
    """Return distinct canonical children of pairs of parents that are drawn uniformly.

    Args:
        space: Of the genotypes.
        parents: Genotypes, shape `(n, g)`.
        count: How many children to draw, an even number; equal ones are returned once.
        rng: Random stream to draw from.
        mutation: Applied to every child.
        crossover: Applied to every pair.
    """
    problem = Problem(n_var=parents.shape[1], xl=0, xu=np.array(space.cardinalities) - 1, vtype=int)
    pairs = rng.integers(len(parents), size=(-(-count // 2), 2))
    children = crossover.do(problem, Population.new("X", parents), pairs, random_state=rng)
    mutated = mutation.do(problem, children, random_state=rng).get("X")
    return np.unique(space.canonicalise(mutated.astype(np.int64)), axis=0)


def tournament(*attributes: str) -> TournamentSelection:
    """Return binary tournaments that the first attribute in which two individuals differ decides.

    Args:
        attributes: Names of an individual's numbers, small ones winning; with a minus in front,
            large ones. Where all are equal, or missing, a coin decides.
    """
    return TournamentSelection(func_comp=_comparison(attributes))


def _comparison(attributes: Sequence[str]) -> Callable[..., IntArray]:
    def winners(
        pop: Population,
        P: IntArray,  # noqa: N803 - pymoo's name
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> IntArray:
        del kwargs
        first, second = P.T
        winner = np.where(random_state.random(len(P)) < 0.5, first, second)
        for attribute in reversed(attributes):
            # An individual that survives by its constraints alone has no rank: None becomes NaN.
            values = np.array(pop.get(attribute.removeprefix("-")), float).reshape(len(pop))
            if attribute.startswith("-"):
                values = -values
            winner = np.where(values[first] < values[second], first, winner)
            winner = np.where(values[second] < values[first], second, winner)
        chosen: IntArray = winner[:, None]
        return chosen

    return winners
