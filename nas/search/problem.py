"""What a search is to solve: a space, objectives, constraints, and what is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.core.errors import ConfigError, NoFeasibleArchitectureError
from nas.core.objective import Constraint, Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.relaxation import Goal
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

INFEASIBLE_DRAWS = 50
"""Random architectures outside the constraints after which the nearest of them is improved."""

WALK_STEPS = 200
"""Changes of one gene that are tried to bring an architecture within the constraints."""

DUPLICATE_DRAWS = 1000
"""Random architectures already known after which no new one is expected."""


@dataclass(frozen=True)
class Scored:
    """Random architectures that zero-cost proxies have scored.

    Attributes:
        genotypes: Canonical, shape `(n, g)`.
        scores: Larger is better, shape `(n, k)`.
    """

    genotypes: IntArray
    scores: FloatArray


@dataclass(frozen=True)
class SearchProblem:
    """A space to search and what to look for in it.

    Attributes:
        space: Where genotypes come from.
        objectives: What to make small, by name, in the study's order.
        constraints: Limits; each names one of `limited`.
        limited: Further objectives that only a constraint refers to, by name.
        facts: What is known of a candidate before it is trained.
        relaxed: Has relaxed networks trained, and returns what is found for each goal: a canonical
            genotype, or `None` where a training failed; for the first ones only, where time is up.
            `None` where nothing can be trained.
        scored: What proxies say of random architectures, where the algorithm asks for that.
    """

    space: SearchSpace
    objectives: Mapping[str, Objective]
    constraints: tuple[Constraint, ...]
    limited: Mapping[str, Objective]
    facts: Facts
    relaxed: Callable[[Sequence[Goal]], Sequence[Genotype | None]] | None = None
    scored: Scored | None = None

    def __post_init__(self) -> None:
        """Check that there is something to search for."""
        if not self.objectives:
            raise ConfigError("search.objectives", [], "at least one objective")

    def known(self, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
        """Return, for each genotype, the objectives and limited values known before training.

        Without a calibrated predictor, what it would say is not among them.
        """
        columns = self.known_columns(genotypes)
        return [
            {name: float(values[i]) for name, values in columns.items()}
            for i in range(len(genotypes))
        ]

    def known_columns(
        self, genotypes: Sequence[Genotype], names: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """Return the same by name, each of shape `(n,)`; of these names only, if any are given."""
        columns = {}
        facts = self.facts.of(genotypes)
        for name, objective in {**self.limited, **self.objectives}.items():
            if (names is None or name in names) and objective.ready(facts):
                values = objective.before_training(genotypes, facts)
                if values is not None:
                    columns[name] = values
        return columns

    def known_violations(self, genotypes: Sequence[Genotype]) -> dict[Constraint, FloatArray]:
        """Return by how much genotypes break each constraint that is known before training.

        Returns:
            Shape `(n,)` for every such constraint, as `Constraint.violation` has it.
        """
        columns = self.known_columns(genotypes, {c.objective for c in self.constraints})
        return {
            c: c.violation(columns[c.objective]) for c in self.constraints if c.objective in columns
        }

    def feasible_rows(self, genotypes: Sequence[Genotype]) -> npt.NDArray[np.bool_]:
        """Return where no constraint is known to be broken before training, shape `(n,)`."""
        kept = np.ones(len(genotypes), bool)
        if not len(kept):
            return kept
        for violations in self.known_violations(genotypes).values():
            kept &= violations <= 0  # NaN keeps no limit
        return kept

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

    def excess(self, trial: Trial) -> float:
        """Return the sum of what a complete trial breaks of each constraint, 0 if all are kept.

        Each part is relative to its limit, so that parts of different units add up.
        """
        violations = zip(self.constraints, self.violations(trial), strict=True)
        return sum(max(violation, 0.0) / _scale(c) for c, violation in violations)

    def samples_feasible(
        self, n: int, rng: np.random.Generator, seen: Collection[Genotype] = ()
    ) -> list[Genotype]:
        """Draw architectures that keep every constraint that is known before training.

        They are drawn uniformly. Where limits are so tight that `INFEASIBLE_DRAWS` draws in a row
        break them, the nearest of these is changed gene by gene, never away from the limits, until
        it keeps them; at last one of those known already is changed so.

        Args:
            n: How many.
            rng: Random stream to draw from.
            seen: Architectures that keep the constraints and are not to be returned again.

        Returns:
            Canonical genotypes, all different; fewer where no others are found any more.

        Raises:
            NoFeasibleArchitectureError: No architecture that keeps the constraints is found;
                names the nearest value of every limited objective.
        """
        search = _FeasibilitySearch(self, seen)
        search.draw(n, rng)
        while len(search.found) < n and search.walk(rng):
            pass
        if n and not search.found and not seen:
            near = ", ".join(f"{c.objective} {value:.4g}" for c, value in search.nearest().items())
            raise NoFeasibleArchitectureError(
                f"search.constraints: none of {search.examined} architectures meets "
                f"{', '.join(map(str, self.constraints))}; nearest values seen: {near}; "
                "loosen a limit or change search_space"
            )
        return list(search.found)


class _FeasibilitySearch:
    """One search for architectures that keep the constraints.

    Attributes:
        found: New ones that do, in the order found.
        examined: Architectures looked at.
    """

    def __init__(self, problem: SearchProblem, seen: Collection[Genotype]) -> None:
        self.found: dict[Genotype, None] = {}
        self.examined = 0
        self._least_broken: dict[Constraint, float] = {}
        self._problem = problem
        self._seen = seen
        self._start: Genotype | None = None
        self._least = math.inf

    def nearest(self) -> dict[Constraint, float]:
        """Return, for every constraint, the value seen that keeps or least breaks it."""
        return {
            c: c.limit + (least if c.relation in ("<", "<=") else -least)
            for c, least in self._least_broken.items()
        }

    def draw(self, n: int, rng: np.random.Generator) -> None:
        """Draw `n` uniformly; give up after too many in a row that are infeasible or not new."""
        infeasible = duplicates = 0
        size = n
        while len(self.found) < n and infeasible < INFEASIBLE_DRAWS:
            drawn = [tuple(row) for row in self._problem.space.samples(size, rng).tolist()]
            new = [genotype for genotype in dict.fromkeys(drawn) if self._is_new(genotype)]
            excess = self._excess(new)
            kept = [genotype for genotype, e in zip(new, excess, strict=True) if e == 0]
            if new and 0 < excess.min() < self._least:
                self._start, self._least = new[int(excess.argmin())], float(excess.min())
            self.found |= dict.fromkeys(kept[: n - len(self.found)])
            infeasible = 0 if kept else infeasible + len(new)
            duplicates = 0 if new else duplicates + size
            if duplicates >= DUPLICATE_DRAWS:
                break
            # What is rare is drawn in larger groups, since a group is judged at the price of one.
            missing = n - len(self.found)
            size = missing if kept else max(missing, min(2 * size, INFEASIBLE_DRAWS - infeasible))

    def walk(self, rng: np.random.Generator) -> bool:
        """Find one more by changing genes one by one, never for the worse; whether it succeeded."""
        if self._start is not None and self._walk_from(self._start, rng):
            return True
        known = sorted({*self._seen, *self.found})
        return bool(known) and self._walk_from(known[rng.integers(len(known))], rng)

    def _walk_from(self, here: Genotype, rng: np.random.Generator) -> bool:
        excess = self._excess([here])[0]
        for _ in range(WALK_STEPS):
            step = self._problem.space.mutate(here, rng)
            step_excess = self._excess([step])[0]
            if step_excess <= excess:
                here, excess = step, step_excess
            if excess == 0 and self._is_new(here):
                self.found[here] = None
                return True
        return False

    def _is_new(self, genotype: Genotype) -> bool:
        return genotype not in self._seen and genotype not in self.found

    def _excess(self, genotypes: Sequence[Genotype]) -> FloatArray:
        """Return the sums of what is broken, each part relative to its limit; 0 if feasible."""
        total = np.zeros(len(genotypes))
        if not len(total):
            return total
        self.examined += len(genotypes)
        for c, violations in self._problem.known_violations(genotypes).items():
            least = min(self._least_broken.get(c, math.inf), float(violations.min()))
            self._least_broken[c] = least
            # NaN keeps no limit.
            total += np.nan_to_num(np.maximum(violations, 0.0), nan=math.inf) / _scale(c)
        return total


def _scale(constraint: Constraint) -> float:
    return abs(constraint.limit) or 1.0
