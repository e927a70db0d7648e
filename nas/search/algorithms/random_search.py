"""Random search: the baseline that every other algorithm is held against."""

from __future__ import annotations

from dataclasses import dataclass

from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer


@register("random_search")
@dataclass(frozen=True, kw_only=True)
class RandomSearchSettings(AlgorithmSettings):
    """Random search has no settings."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        return RandomSearch(problem, seed)


class RandomSearch(Proposer):
    """Draws feasible architectures, each at most once."""

    def _suggest(self, n: int) -> list[Genotype]:
        del n
        return []
