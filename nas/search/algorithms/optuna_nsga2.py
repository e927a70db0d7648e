"""NSGA-II (Deb et al., 2002) as Optuna has it, in generations: to compare with `nsga2`."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.samplers import NSGAIISampler

from nas.core.trial import SearchAlgorithm
from nas.search.algorithms import register
from nas.search.algorithms.genetic.settings import GeneticSettings
from nas.search.algorithms.samplers.run import SamplerRun
from nas.search.problem import SearchProblem


@register("optuna_nsga2")
@dataclass(frozen=True, kw_only=True)
class OptunaNsga2Settings(GeneticSettings):
    """Settings of Optuna's NSGA-II; a mutated gene is drawn anew, ordinal or not."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        sampler = NSGAIISampler(
            population_size=self.population,
            crossover_prob=self.crossover_probability,
            mutation_prob=min(1.0, self.mutated_genes / len(problem.space.genes)),
            seed=seed,
        )
        return SamplerRun(problem, seed, sampler)
