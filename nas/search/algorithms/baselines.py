"""Random search, regularised evolution and Pareto local search: what others are compared with."""

from __future__ import annotations

import sys
from collections import deque
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
from nas.search.ranking import constrained_ranks, crowding_distances

CHILD_ATTEMPTS = 100
"""Children drawn for a new feasible one before a random architecture is proposed instead."""

LARGEST_GROUP = 64
"""Architectures that random search draws at once."""


@register("random_search")
@dataclass(frozen=True, kw_only=True)
class RandomSearchSettings(AlgorithmSettings):
    """Random search has no settings."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        return RandomSearch(problem, seed)


class RandomSearch(Proposer):
    """Draws feasible architectures, each at most once."""

    def __init__(self, problem: SearchProblem, seed: int) -> None:
        """Search `problem` with the random stream of `seed`."""
        super().__init__(problem, seed, initial=sys.maxsize)
        self._drawn: list[Genotype] = []

    def _random(self, n: int) -> list[Genotype]:
        """Draw in groups, as a group costs little more than one: as many as there were so far."""
        drawn = [genotype for genotype in self._drawn if genotype not in self.seen]
        if len(drawn) < n:
            missing = max(n, min(len(self.seen), LARGEST_GROUP)) - len(drawn)
            drawn += self.problem.samples_feasible(missing, self.rng, self.seen.union(drawn))
        self._drawn = drawn[n:]
        return drawn[:n]

    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        del n, pending
        return []


@register("regularised_evolution")
@dataclass(frozen=True, kw_only=True)
class RegularisedEvolutionSettings(AlgorithmSettings):
    """Settings of regularised evolution.

    Attributes:
        population: Youngest architectures that may have children; so many are first drawn at
            random.
        tournament: Architectures of the population that are drawn for each child; the best of them
            is its parent.
    """

    population: int = 20
    tournament: int = 5

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.population < 1:
            raise ConfigError("search.algorithm.population", self.population, "1 or more")
        if not 1 <= self.tournament <= self.population:
            expected = f"1 to search.algorithm.population, {self.population}"
            raise ConfigError("search.algorithm.tournament", self.tournament, expected)

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        return RegularisedEvolution(problem, seed, self)


class RegularisedEvolution(Proposer):
    """A run of regularised evolution."""

    def __init__(
        self, problem: SearchProblem, seed: int, settings: RegularisedEvolutionSettings
    ) -> None:
        """Search `problem` with the random stream of `seed`."""
        super().__init__(problem, seed, initial=settings.population)
        self._tournament = settings.tournament
        self._population: deque[Trial] = deque(maxlen=settings.population)

    def _learn(self, trials: Sequence[Trial]) -> None:
        self._population.extend(trials)

    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        del pending
        if not self._population:
            return []
        merit = self._merit()
        children: dict[Genotype, None] = {}
        for _ in range(n):
            for _ in range(CHILD_ATTEMPTS):
                child = self.problem.space.mutate(self._parent(merit), self.rng)
                if child not in children and self._admitted([child]):
                    children[child] = None
                    break
            else:
                break
        return list(children)

    def _merit(self) -> Sequence[int]:
        """Return the place of every member of the population, the best one's 0."""
        values = np.array([self._objectives(trial) for trial in self._population])
        excess = np.array([self.problem.excess(trial) for trial in self._population])
        ranks = constrained_ranks(values, excess)
        order = np.lexsort((-crowding_distances(values, ranks), ranks))
        return [int(place) for place in order.argsort()]

    def _parent(self, merit: Sequence[int]) -> Genotype:
        size = min(self._tournament, len(merit))
        drawn = self.rng.choice(len(merit), size, replace=False)
        return self._population[min(drawn, key=merit.__getitem__)].genotype


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

    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        del pending
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
