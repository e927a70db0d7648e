"""NSGA-II (Deb et al., 2002) on integer genotypes, one offspring at a time.

Selection, ranking and survival are pymoo's; what depends on genotypes (mutation, folding to the
canonical form, the test for duplicates) is ours. Offspring join the population singly
("steady state", Durillo et al., 2009), so that a proposal uses every trial told so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.individual import Individual
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UX

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem

OFFSPRING_ATTEMPTS = 100
"""Matings tried for a new feasible genotype before a random one is proposed instead."""


@register("nsga2")
@dataclass(frozen=True, kw_only=True)
class Nsga2Settings(AlgorithmSettings):
    """Settings of NSGA-II.

    Attributes:
        population: Architectures that survive; the first so many are drawn at random.
        crossover_probability: That two parents exchange genes (uniform crossover).
        mutated_genes: Genes of an offspring that mutate, on average.
    """

    population: int = 16
    crossover_probability: float = 0.9
    mutated_genes: float = 2.0

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.population < 2:
            raise ConfigError("search.algorithm.population", self.population, "2 or more")
        if not 0 <= self.crossover_probability <= 1:
            name = "search.algorithm.crossover_probability"
            raise ConfigError(name, self.crossover_probability, "between 0 and 1")
        if self.mutated_genes <= 0:
            raise ConfigError("search.algorithm.mutated_genes", self.mutated_genes, "more than 0")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        return Nsga2(problem, seed, self)


class ChoiceMutation(Mutation):  # type: ignore[misc]
    """Replaces genes by another of their choices, each with the same probability."""

    def __init__(self, cardinalities: Sequence[int], mutated_genes: float) -> None:
        super().__init__()
        self._cardinalities = np.asarray(cardinalities)
        self._rate = min(1.0, mutated_genes / len(cardinalities))

    def _do(
        self,
        problem: Problem,
        X: npt.NDArray[np.int64],  # noqa: N803 - pymoo's name
        *args: Any,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> npt.NDArray[np.int64]:
        del problem, args, kwargs
        steps = random_state.integers(1, np.maximum(self._cardinalities, 2), size=X.shape)
        changed = (random_state.random(X.shape) < self._rate) & (self._cardinalities > 1)
        return np.where(changed, (X + steps) % self._cardinalities, X)


class Nsga2(SearchAlgorithm):
    """A run of steady-state NSGA-II."""

    def __init__(self, problem: SearchProblem, seed: int, settings: Nsga2Settings) -> None:
        """Search `problem` with the random streams of `seed`."""
        self._problem = problem
        drawing, mating = np.random.SeedSequence(seed).generate_state(2)
        self._rng = np.random.default_rng(drawing)
        cardinalities = problem.space.cardinalities
        self._initial = settings.population
        self._seen: set[Genotype] = set()
        self._told = 0
        self._pymoo = NSGA2(
            pop_size=settings.population,
            n_offsprings=1,
            crossover=UX(prob=settings.crossover_probability),
            mutation=ChoiceMutation(cardinalities, settings.mutated_genes),
            eliminate_duplicates=False,
        )
        self._pymoo.setup(
            Problem(
                n_var=len(cardinalities),
                n_obj=len(problem.objectives),
                n_ieq_constr=len(problem.constraints),
                xl=0,
                xu=np.asarray(cardinalities) - 1,
                vtype=int,
            ),
            seed=int(mating),
            termination=NoTermination(),
        )

    def ask(self, n: int) -> list[Genotype]:
        """Propose `n` new genotypes; see `SearchAlgorithm.ask`."""
        proposed: list[Genotype] = []
        for _ in range(n):
            genotype = self._offspring() if len(self._seen) >= self._initial else None
            if genotype is None:
                genotype = self._problem.sample_feasible(self._rng, self._seen)
            if genotype is None:
                break
            self._seen.add(genotype)
            proposed.append(genotype)
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let complete trials compete; failed ones are only never proposed again."""
        for trial in trials:
            self._seen.add(trial.genotype)
            if trial.complete:
                # One at a time, so that it does not matter how trials are grouped.
                self._told += 1
                self._pymoo.tell(infills=Population.create(self._individual(trial)))

    def _individual(self, trial: Trial) -> Individual:
        values = [trial.values[name] for name in self._problem.objectives]
        violations = self._problem.violations(trial)
        individual = Individual(
            X=np.asarray(trial.genotype), F=np.asarray(values), G=np.asarray(violations)
        )
        individual.evaluated.update({"F", "G"})
        return individual

    def _offspring(self) -> Genotype | None:
        """Mate until a new, feasible genotype appears; `None` where that does not happen."""
        if self._told < 2:  # a tournament needs two
            return None
        for _ in range(OFFSPRING_ATTEMPTS):
            for individual in self._pymoo.ask():
                genotype = self._problem.space.canonical([int(gene) for gene in individual.X])
                if genotype not in self._seen and self._problem.feasible(genotype):
                    return genotype
        return None
