"""What a search is to solve: a space, objectives, constraints, and what is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.errors import ConfigError, NoFeasibleArchitectureError
from nas.core.objective import Constraint, Facts, Objective
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.space import SearchSpace

INFEASIBLE_DRAWS = 50
"""Random architectures outside the constraints after which the nearest of them is improved."""

WALK_STEPS = 200
"""Changes of one gene that are tried to bring an architecture within the constraints."""

DUPLICATE_DRAWS = 1000
"""Random architectures already known after which no new one is expected."""


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
        """Return, for each genotype, the objectives and limited values known before training.

        Without a calibrated predictor, what it would say is not among them.
        """
        columns = {}
        for name, objective in {**self.limited, **self.objectives}.items():
            if not objective.ready(self.facts):
                continue
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

    def kept(self, trial: Trial) -> bool:
        """Return whether a trial is complete and keeps every constraint."""
        return trial.complete and all(violation <= 0 for violation in self.violations(trial))

    def violations(self, trial: Trial) -> list[float]:
        """Return by how much a complete trial breaks each constraint; at most 0 if kept.

        What was measured counts where a candidate was measured, else what was predicted.
        """
        values = dict(trial.values)
        for name, objective in self.limited.items():
            values[name] = trial.facts[objective.column]
        for name, objective in {**self.limited, **self.objectives}.items():
            column = objective.measured_column
            if column is not None and column in trial.facts:
                values[name] = trial.facts[column]
        return [c.violation(values[c.objective]) for c in self.constraints]

    def sample_feasible(
        self, rng: np.random.Generator, seen: Collection[Genotype] = ()
    ) -> Genotype | None:
        """Draw an architecture that keeps every constraint that is known before training.

        It is drawn uniformly. Where limits are so tight that `INFEASIBLE_DRAWS` draws break them,
        the nearest of these is changed gene by gene, never away from the limits, until it keeps
        them; at last one of `seen` is changed so.

        Args:
            rng: Random stream to draw from.
            seen: Architectures that keep the constraints and are not to be returned again.

        Returns:
            A canonical genotype; `None` where only those of `seen` are found any more.

        Raises:
            NoFeasibleArchitectureError: No architecture that keeps the constraints is found;
                names the nearest value of every limited objective.
        """
        search = _FeasibilitySearch(self)
        found = search.draw(rng, seen)
        if found is None and search.start is not None:
            found = search.walk(rng, seen, search.start)
        if found is None and seen:
            found = search.walk(rng, seen, sorted(seen)[rng.integers(len(seen))])
        if found is None and not seen:
            near = ", ".join(f"{c.objective} {value:.4g}" for c, value in search.nearest.items())
            raise NoFeasibleArchitectureError(
                f"search.constraints: none of {search.examined} architectures meets "
                f"{', '.join(map(str, self.constraints))}; nearest values seen: {near}; "
                "loosen a limit or change search_space"
            )
        return found


class _FeasibilitySearch:
    """One search for an architecture that keeps the constraints.

    Attributes:
        examined: Architectures looked at.
        nearest: For every constraint, the value seen that keeps or least breaks it.
        start: Of the architectures drawn in vain, the nearest to all constraints.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self.examined = 0
        self.nearest: dict[Constraint, float] = {}
        self.start: Genotype | None = None
        self._problem = problem

    def draw(self, rng: np.random.Generator, seen: Collection[Genotype]) -> Genotype | None:
        """Draw uniformly; give up after too many that are infeasible or seen."""
        least = math.inf
        duplicates = 0
        while self.examined < INFEASIBLE_DRAWS and duplicates < DUPLICATE_DRAWS:
            genotype = self._problem.space.sample(rng)
            if genotype in seen:
                duplicates += 1
                continue
            excess = self._excess(genotype)
            if excess == 0:
                return genotype
            if excess < least:
                self.start, least = genotype, excess
        return None

    def walk(
        self, rng: np.random.Generator, seen: Collection[Genotype], start: Genotype
    ) -> Genotype | None:
        """Change genes one by one, never for the worse."""
        space = self._problem.space
        here, excess = start, self._excess(start)
        for _ in range(WALK_STEPS):
            step = space.mutate(here, rng)
            step_excess = self._excess(step)
            if step_excess <= excess:
                here, excess = step, step_excess
            if excess == 0 and here not in seen:
                return here
        return None

    def _excess(self, genotype: Genotype) -> float:
        """Return the sum of what is broken, each part relative to its limit; 0 if feasible."""
        self.examined += 1
        known = self._problem.known([genotype])[0]
        total = 0.0
        for c in self._problem.constraints:
            if c.objective in known:
                broken = c.violation(known[c.objective])
                if c not in self.nearest or broken < c.violation(self.nearest[c]):
                    self.nearest[c] = known[c.objective]
                total += max(broken, 0.0) / (abs(c.limit) or 1.0)
        return total
