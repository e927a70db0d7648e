"""Settings of genetic algorithms, whoever implements them."""

from __future__ import annotations

from dataclasses import dataclass

from nas.core.errors import ConfigError
from nas.search.algorithms import AlgorithmSettings


@dataclass(frozen=True, kw_only=True)
class GeneticSettings(AlgorithmSettings):
    """Settings that all genetic algorithms have.

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
