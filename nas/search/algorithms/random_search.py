"""Random search: the baseline that every other algorithm is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem

DUPLICATES_IN_A_ROW = 1000
"""After so many repeated draws the space counts as exhausted."""


@register("random_search")
@dataclass(frozen=True, kw_only=True)
class RandomSearchSettings(AlgorithmSettings):
    """Random search has no settings."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        return RandomSearch(problem, seed)


class RandomSearch(SearchAlgorithm):
    """Draws feasible architectures, each at most once."""

    def __init__(self, problem: SearchProblem, seed: int) -> None:
        """Search `problem` with the random stream of `seed`."""
        self._problem = problem
        self._rng = np.random.default_rng(seed)
        self._seen: set[Genotype] = set()

    def ask(self, n: int) -> list[Genotype]:
        """Propose `n` new genotypes; see `SearchAlgorithm.ask`."""
        proposed: list[Genotype] = []
        duplicates = 0
        while len(proposed) < n and duplicates < DUPLICATES_IN_A_ROW:
            genotype = self._problem.sample_feasible(self._rng)
            duplicates = duplicates + 1 if genotype in self._seen else 0
            if not duplicates:
                self._seen.add(genotype)
                proposed.append(genotype)
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Random search learns nothing."""
