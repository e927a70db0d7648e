"""NSGA-II (Deb et al., 2002) on genotypes."""

from __future__ import annotations

from dataclasses import dataclass

from pymoo.algorithms.moo.nsga2 import NSGA2

from nas.core.trial import SearchAlgorithm
from nas.search.algorithms import register
from nas.search.algorithms.genetic.operators import tournament
from nas.search.algorithms.genetic.run import GeneticRun, operators
from nas.search.algorithms.genetic.settings import GeneticSettings
from nas.search.problem import SearchProblem


@register("nsga2")
@dataclass(frozen=True, kw_only=True)
class Nsga2Settings(GeneticSettings):
    """Settings of NSGA-II: survivors are those of the best ranks, then the least crowded."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        selection = tournament("CV", "rank", "-crowding")
        return GeneticRun(problem, seed, NSGA2(selection=selection, **operators(self, problem)))
