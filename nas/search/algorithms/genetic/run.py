"""A run of one of pymoo's genetic algorithms.

Selection, ranking and survival are pymoo's; what depends on genotypes (mutation, folding to the
canonical form, the test for duplicates) is ours: pymoo compares all pairs of a generation, a set of
genotypes does not. What has been told since the last proposal competes when the next one is asked
for. So asking for one at a time gives a steady state (Durillo et al., 2009), in which a proposal
uses every trial told so far, and asking for a whole population gives generations.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UX

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.blocks import IntArray
from nas.search.algorithms.genetic.operators import GeneMutation
from nas.search.algorithms.genetic.settings import GeneticSettings
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer

OFFSPRING_ATTEMPTS = 100
"""Matings tried for every new feasible genotype before a random one is proposed instead."""


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

    def _suggest(self, n: int) -> list[Genotype]:
        """Mate until `n` new, feasible genotypes appear or hardly any does any more."""
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
        genes = self._unfolded(np.array([trial.genotype for trial in trials]))
        return [
            Individual(X=x, F=f, CV=np.array([self.problem.excess(trial)]))
            for x, f, trial in zip(genes, values / self._scale, trials, strict=True)
        ]

    def _unfolded(self, genotypes: IntArray) -> IntArray:
        """Draw the inactive genes of canonical genotypes anew.

        An offspring in which such a gene becomes active again would else have its first choice.
        """
        drawn = self.rng.integers(0, self._sizes, genotypes.shape)
        return np.where(self.problem.space.actives(genotypes), genotypes, drawn)
