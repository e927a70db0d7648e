"""Random search: the baseline that every other algorithm is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem


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
        while len(proposed) < n:
            genotype = self._problem.sample_feasible(self._rng, self._seen)
            if genotype is None:
                break
            self._seen.add(genotype)
            proposed.append(genotype)
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Random search learns nothing."""
