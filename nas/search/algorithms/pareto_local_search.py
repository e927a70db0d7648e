"""Pareto local search (Paquete, Chiarandini and Stuetzle, 2004).

An archive keeps the non-dominated architectures. The neighbours of one of its members, drawn at
random, are proposed until none is left or the member is dominated; then those of another one follow
whose neighbours have not been proposed yet. Where all members have been explored, a random
architecture is proposed: the search starts anew, and keeps its archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer
from nas.search.ranking import constrained_ranks


@register("pareto_local_search")
@dataclass(frozen=True, kw_only=True)
class ParetoLocalSearchSettings(AlgorithmSettings):
    """Settings of Pareto local search.

    Attributes:
        initial: Architectures that are first drawn at random.
    """

    initial: int = 10

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.initial < 1:
            raise ConfigError("search.algorithm.initial", self.initial, "1 or more")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        return ParetoLocalSearch(problem, seed, self)


class ParetoLocalSearch(Proposer):
    """A run of Pareto local search."""

    def __init__(
        self, problem: SearchProblem, seed: int, settings: ParetoLocalSearchSettings
    ) -> None:
        """Search `problem` with the random stream of `seed`."""
        super().__init__(problem, seed, initial=settings.initial)
        self._archive: dict[Genotype, Trial] = {}
        self._explored: set[Genotype] = set()
        self._centre: Genotype | None = None

    def _learn(self, trials: Sequence[Trial]) -> None:
        """Keep the non-dominated; those that break constraints only while nothing keeps them."""
        self._archive.update({trial.genotype: trial for trial in trials})
        members = list(self._archive.values())
        values = np.array([self._objectives(trial) for trial in members])
        excess = np.array([self.problem.excess(trial) for trial in members])
        best = constrained_ranks(values, excess) == 0
        self._archive = {t.genotype: t for t, kept in zip(members, best, strict=True) if kept}

    def _suggest(self, n: int) -> list[Genotype]:
        while (centre := self._next_centre()) is not None:
            near = self._admitted(neighbours(self.problem.space, centre))
            if near:
                drawn = self.rng.permutation(len(near))[:n]
                return [near[i] for i in drawn]
            self._explored.add(centre)
        return []

    def _next_centre(self) -> Genotype | None:
        """Return the member whose neighbours are proposed, another one once it is explored."""
        if self._centre not in self._archive or self._centre in self._explored:
            left = [genotype for genotype in self._archive if genotype not in self._explored]
            self._centre = left[self.rng.integers(len(left))] if left else None
        return self._centre


def neighbours(space: SearchSpace, genotype: Genotype) -> IntArray:
    """Return what changing one active gene gives, shape `(n, g)`.

    An ordinal gene changes to the choices next to its own, a categorical one to all others.
    """
    changed: list[Genotype] = []
    genes = zip(space.genes, genotype, space.active(genotype), strict=True)
    for i, (gene, own, active) in enumerate(genes):
        near = (own - 1, own + 1) if gene.ordinal else range(len(gene.choices))
        others = [c for c in near if active and c != own and 0 <= c < len(gene.choices)]
        changed += [(*genotype[:i], choice, *genotype[i + 1 :]) for choice in others]
    return space.matrix(changed)
