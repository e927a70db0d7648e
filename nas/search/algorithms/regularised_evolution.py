"""Regularised evolution (Real et al., AAAI 2019) on several objectives.

The oldest dies, not the worst, so that an architecture stays only by having children that are good
when they are evaluated themselves. With several objectives, the best of a tournament is the one of
least non-dominated rank in the population, then the least crowded one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer
from nas.search.ranking import constrained_ranks, crowding_distances

CHILD_ATTEMPTS = 100
"""Children drawn for a new feasible one before a random architecture is proposed instead."""


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
        """Start a run; see `AlgorithmSettings.start`."""
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

    def _suggest(self, n: int) -> list[Genotype]:
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
