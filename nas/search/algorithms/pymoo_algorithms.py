"""Genetic algorithms of pymoo on genotypes: NSGA-II, NSGA-III and SMS-EMOA.

Selection, ranking and survival are pymoo's; what depends on genotypes (mutation, canonical form,
test for duplicates) is not. What has been told since the last proposal competes when the next one
is asked for. So asking for one at a time gives a steady state (Durillo et al., 2009), in which a
proposal uses every trial told so far, and asking for a whole population gives generations.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.moo.sms import SMSEMOA, LeastHypervolumeContributionSurvival
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UX
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.util.ref_dirs import get_reference_directions

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.network.blocks import IntArray
from nas.search.algorithms import GeneticSettings, register
from nas.search.operators import GeneMutation, tournament
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer

OFFSPRING_ATTEMPTS = 100
"""Matings tried for every new feasible genotype before a random one is proposed instead."""


@register("nsga2")
@dataclass(frozen=True, kw_only=True)
class Nsga2Settings(GeneticSettings):
    """Settings of NSGA-II (Deb et al., 2002).

    Survivors are those of the best ranks, then the least crowded.
    """

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        selection = tournament("CV", "rank", "-crowding")
        return GeneticRun(problem, seed, NSGA2(selection=selection, **operators(self, problem)))


@register("nsga3")
@dataclass(frozen=True, kw_only=True)
class Nsga3Settings(GeneticSettings):
    """Settings of NSGA-III (Deb and Jain, 2014), for three objectives and more.

    Survivors are spread over reference directions, as many as the population has places for.
    """

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
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


@register("sms_emoa")
@dataclass(frozen=True, kw_only=True)
class SmsEmoaSettings(GeneticSettings):
    """Settings of SMS-EMOA (Beume, Naujoks and Emmerich, 2007).

    Of the worst rank, the one that adds least hypervolume does not survive. On NAS-Bench-201 it is
    as good as AGE-MOEA (Panichella, 2019), which therefore is not offered: 0.965 and 0.978 of the
    true front's hypervolume after 200 and 350 evaluations, AGE-MOEA 0.962 and 0.977 (CIFAR-100,
    three devices, six seeds, a population of 16, one mutated gene).
    """

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        # With one objective the order by hypervolume is the objective's own, and pymoo has none.
        single = len(problem.objectives) == 1
        algorithm = SMSEMOA(
            selection=tournament("CV", "rank"),
            survival=RankAndCrowding() if single else LeastHypervolumeContributionSurvival(),
            **operators(self, problem),
        )
        return GeneticRun(problem, seed, algorithm)


def operators(settings: GeneticSettings, problem: SearchProblem) -> dict[str, object]:
    """Return pymoo's arguments for the population and how it multiplies."""
    return {
        "pop_size": settings.population,
        "crossover": UX(prob=settings.crossover_probability),
        "mutation": GeneMutation(problem.space.genes, settings.mutated_genes),
        "eliminate_duplicates": False,
    }


class GeneticRun(Proposer):
    """A run of one of pymoo's genetic algorithms."""

    def __init__(self, problem: SearchProblem, seed: int, algorithm: GeneticAlgorithm) -> None:
        """Begin a search.

        Args:
            problem: What to search for.
            seed: Of the random streams.
            algorithm: Not set up yet.
        """
        drawing, mating = np.random.SeedSequence(seed).generate_state(2)
        super().__init__(problem, int(drawing), initial=algorithm.pop_size)
        self._sizes = np.array(problem.space.cardinalities)
        self._waiting: list[Trial] = []
        self._scale: FloatArray | None = None
        self._pymoo = algorithm
        self._pymoo.setup(
            Problem(
                n_var=len(self._sizes),
                n_obj=len(problem.objectives),
                n_ieq_constr=min(len(problem.constraints), 1),
                xl=0,
                xu=self._sizes - 1,
                vtype=int,
            ),
            seed=int(mating),
            termination=NoTermination(),
        )

    def _learn(self, trials: Sequence[Trial]) -> None:
        self._waiting += trials

    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        """Mate until `n` new, feasible genotypes appear or hardly any does any more."""
        del pending
        self._compete()
        found: dict[Genotype, None] = {}
        tried = 0
        # A tournament needs two.
        while (
            self._pymoo.pop is not None
            and len(self._pymoo.pop) > 1
            and len(found) < n
            and tried < OFFSPRING_ATTEMPTS * (len(found) + 1)
        ):
            self._pymoo.n_offsprings = n - len(found)
            offspring = np.array([individual.X for individual in self._pymoo.ask()])
            found |= dict.fromkeys(self._admitted(offspring))
            tried += len(offspring)
        return list(found)

    def _compete(self) -> None:
        """Let the trials told since the last call compete with those that have survived."""
        if not self._waiting:
            return
        individuals = self._individuals(self._waiting)
        self._waiting = []
        # All that pymoo is told first survive, so these are no more than there are places.
        places = 0 if self._pymoo.is_initialized else self._pymoo.pop_size
        with warnings.catch_warnings():  # NSGA-III's survival changes what warnings are shown
            for group in (individuals[:places], individuals[places:]):
                if group:
                    self._pymoo.tell(infills=Population.create(*group))

    def _individuals(self, trials: Sequence[Trial]) -> list[Individual]:
        values = np.array([self._objectives(trial) for trial in trials])
        if self._scale is None:
            # NSGA-III takes differences below 0.001 for none, whatever the unit.
            self._scale = np.where(values[0] == 0, 1.0, np.abs(values[0]))
        genes = self._with_random_inactive_genes(np.array([trial.genotype for trial in trials]))
        return [
            Individual(X=x, F=f, CV=np.array([self.problem.excess(trial)]))
            for x, f, trial in zip(genes, values / self._scale, trials, strict=True)
        ]

    def _with_random_inactive_genes(self, genotypes: IntArray) -> IntArray:
        """Draw the inactive genes of canonical genotypes anew.

        An offspring in which such a gene becomes active again would else have its first choice.
        """
        drawn = self.rng.integers(0, self._sizes, genotypes.shape)
        return np.where(self.problem.space.actives(genotypes), genotypes, drawn)
