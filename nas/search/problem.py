"""What a search is to solve: a space, objectives, constraints, and what is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.errors import ConfigError, NoFeasibleArchitectureError
from nas.core.objective import Constraint, Facts, Objective
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.space import SearchSpace

FEASIBILITY_SAMPLES = 300
"""Random architectures that are tried before a search gives up on its constraints."""


@dataclass(frozen=True)
class SearchProblem:
    """A space to search and what to look for in it.

    Attributes:
        space: Where genotypes come from.
        objectives: What to make small, by name, in the study's order.
        constraints: Limits; each names one of `limited`.
        limited: Further objectives that only a constraint refers to, by name.
        facts: What is known of a candidate before it is trained.
    """

    space: SearchSpace
    objectives: Mapping[str, Objective]
    constraints: tuple[Constraint, ...]
    limited: Mapping[str, Objective]
    facts: Facts

    def __post_init__(self) -> None:
        """Check that there is something to search for."""
        if not self.objectives:
            raise ConfigError("search.objectives", [], "at least one objective")

    def known(self, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
        """Return, for each genotype, the objectives and limited values known before training."""
        columns = {}
        for name, objective in {**self.limited, **self.objectives}.items():
            values = objective.before_training(genotypes, self.facts)
            if values is not None:
                columns[name] = values
        return [
            {name: float(values[i]) for name, values in columns.items()}
            for i in range(len(genotypes))
        ]

    def feasible(self, genotype: Genotype) -> bool:
        """Return whether no constraint is known to be broken before training."""
        known = self.known([genotype])[0]
        return all(c.met(known[c.objective]) for c in self.constraints if c.objective in known)

    def violations(self, trial: Trial) -> list[float]:
        """Return by how much a complete trial breaks each constraint; at most 0 if kept."""
        values = dict(trial.values)
        for name, objective in self.limited.items():
            values[name] = trial.facts[objective.column]
        return [c.violation(values[c.objective]) for c in self.constraints]

    def sample_feasible(self, rng: np.random.Generator) -> Genotype:
        """Draw architectures until one keeps every constraint that is known before training.

        Raises:
            NoFeasibleArchitectureError: None of `FEASIBILITY_SAMPLES` does; names the nearest
                value of every limited objective.
        """
        nearest: dict[Constraint, float] = {}
        for _ in range(FEASIBILITY_SAMPLES):
            genotype = self.space.sample(rng)
            known = self.known([genotype])[0]
            limits = [c for c in self.constraints if c.objective in known]
            if all(c.met(known[c.objective]) for c in limits):
                return genotype
            for c in limits:
                value = known[c.objective]
                if c not in nearest or c.violation(value) < c.violation(nearest[c]):
                    nearest[c] = value
        seen = ", ".join(f"{c.objective} {value:.4g}" for c, value in nearest.items())
        raise NoFeasibleArchitectureError(
            f"search.constraints: none of {FEASIBILITY_SAMPLES} random architectures meets "
            f"{', '.join(map(str, self.constraints))}; nearest values seen: {seen}; loosen a limit "
            "or change search_space"
        )
