"""Search algorithms.

`baselines`, `optuna_samplers` and `pymoo_algorithms` hold several that are small, or share most of
their code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nas.core.errors import ConfigError
from nas.core.registry import Registry
from nas.core.trial import SearchAlgorithm
from nas.search.problem import SearchProblem


@dataclass(frozen=True, kw_only=True)
class AlgorithmSettings(ABC):
    """The settings of a search algorithm, from which a run of it is started."""

    @abstractmethod
    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run on `problem`; equal seeds give equal runs."""


@dataclass(frozen=True, kw_only=True)
class GeneticSettings(AlgorithmSettings):
    """Settings that all genetic algorithms have, whatever library they come from.

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


registry: Registry[AlgorithmSettings] = Registry("search algorithm", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = [
    "AlgorithmSettings",
    "GeneticSettings",
    "component",
    "get",
    "names",
    "register",
    "registry",
]
