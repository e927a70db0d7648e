"""NSGA-III (Deb and Jain, 2014) on genotypes, for three objectives and more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.util.ref_dirs import get_reference_directions

from nas.core.prediction import FloatArray
from nas.core.trial import SearchAlgorithm
from nas.search.algorithms import register
from nas.search.algorithms.genetic.operators import tournament
from nas.search.algorithms.genetic.run import GeneticRun, operators
from nas.search.algorithms.genetic.settings import GeneticSettings
from nas.search.problem import SearchProblem


@register("nsga3")
@dataclass(frozen=True, kw_only=True)
class Nsga3Settings(GeneticSettings):
    """Settings of NSGA-III: survivors are spread over reference directions.

    There are as many directions as the population has places for.
    """

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        algorithm = NSGA3(
            reference_directions(len(problem.objectives), self.population),
            # Parents are drawn; only broken constraints make a difference (section IV.C of the
            # paper's second part, Jain and Deb, 2014).
            selection=tournament("CV"),
            **operators(self, problem),
        )
        return GeneticRun(problem, seed, algorithm)


def reference_directions(objectives: int, most: int) -> FloatArray:
    """Return evenly spread directions (Das and Dennis, 1998), as many as fit.

    Args:
        objectives: Dimension.
        most: Largest number of directions, 1 or more; fewer than `objectives` is not kept.

    Returns:
        Points of the unit simplex, shape `(directions, objectives)`.
    """
    partitions = 1
    if objectives > 1:
        while math.comb(partitions + objectives, objectives - 1) <= most:
            partitions += 1
    directions: FloatArray = get_reference_directions(
        "das-dennis", objectives, n_partitions=partitions
    )
    return directions
