"""Search by gradients: one relaxed training for every target of a sweep over a cost.

The algorithm chooses targets and proposes what is found for them. The trainings are the study's
work (`SearchProblem.relaxed`), so it sees neither networks nor workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.core.errors import ConfigError
from nas.core.relaxation import Goal, RelaxationSettings
from nas.core.space import Genotype
from nas.core.trial import Candidate, SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem

RANGE_SAMPLE = 256
"""Random architectures from whose extremes the range of a cost is looked for."""

WIDEST_RANGE = 1000.0
"""Of the largest to the smallest target, as a cost may be 0."""


@register("gradient")
@dataclass(frozen=True, kw_only=True)
class GradientSettings(RelaxationSettings, AlgorithmSettings):
    """Settings of a search by gradients.

    The search ends when what was found for all targets has been proposed, or by a limit before.

    Attributes:
        cost: Objective that targets are of, which is known before training; empty for the first
            such one of `search.objectives`.
        targets: How many targets there are, spread logarithmically from the smallest to the largest
            cost of the space, or to a limit of `search.constraints` on it.
        target_values: Targets in the cost's unit, in place of those.
        seeds: Relaxed trainings for every target, with other seeds.
    """

    cost: str = ""
    targets: int = 8
    target_values: tuple[float, ...] = ()
    seeds: int = 1

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        for name in ("targets", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.algorithm.{name}", getattr(self, name), "1 or more")
        if any(value <= 0 for value in self.target_values):
            got = list(self.target_values)
            raise ConfigError("search.algorithm.target_values", got, "numbers above 0")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`.

        Raises:
            ConfigError: Nothing can be trained, or there is no such cost or target.
        """
        return GradientSearch(problem, seed, self)

    def cost_of(self, problem: SearchProblem) -> str:
        """Return the name of the objective that targets are of.

        Raises:
            ConfigError: No objective is known before training, or not this one.
        """
        known = problem.known([problem.space.canonical([0] * len(problem.space.genes))])[0]
        names = [name for name in [*problem.objectives, *problem.limited] if name in known]
        if not names or (self.cost and self.cost not in names):
            expected = "an objective or a limited one that is known before training"
            fix = f"known are: {', '.join(names) or 'none'}; add latency_ms to search.objectives"
            raise ConfigError("search.algorithm.cost", self.cost, expected, fix)
        return self.cost or names[0]


class GradientSearch(SearchAlgorithm):
    """A run of a search by gradients."""

    def __init__(self, problem: SearchProblem, seed: int, settings: GradientSettings) -> None:
        """Choose the targets; nothing is trained before something is asked for."""
        if problem.relaxed is None:
            expected = "an algorithm that trains no relaxed networks, as there are no images here"
            raise ConfigError("search.algorithm.name", "gradient", expected)
        self._problem, self._relaxed = problem, problem.relaxed
        rng = np.random.default_rng(seed)
        self._seen: set[Genotype] = set()
        self._found: deque[Genotype] = deque()
        self._seeds = rng.integers(2**31, size=settings.seeds).tolist()
        self._targets = targets_of(problem, settings, rng)

    def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
        self._seen.update(candidate.genotype for candidate in pending)
        proposed: list[Genotype] = []
        while len(proposed) < n:
            if self._found:
                genotype = self._found.popleft()
                if genotype not in self._seen:
                    self._seen.add(genotype)
                    proposed.append(genotype)
            elif self._seeds:
                self._sweep(self._seeds.pop(0))
            else:
                break
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        self._seen.update(trial.genotype for trial in trials)

    def _sweep(self, seed: int) -> None:
        """Have a network found for every target."""
        goals = [Goal(target, seed) for target in self._targets]
        found = self._relaxed(goals)
        if len(found) < len(goals):  # time is up
            self._seeds = []
        genotypes = [genotype for genotype in found if genotype is not None]
        kept = self._problem.feasible_rows(genotypes)
        self._found.extend(g for g, ok in zip(genotypes, kept, strict=True) if ok)


def targets_of(
    problem: SearchProblem, settings: GradientSettings, rng: np.random.Generator
) -> list[float]:
    """Return the targets of a sweep, in the order in which they are aimed at.

    Each is as far as possible from those before, so that a sweep that is cut covers the range.

    Raises:
        ConfigError: A target cannot be reached.
    """
    name = settings.cost_of(problem)
    least, most = (_extreme(problem, name, sign, rng) for sign in (1, -1))
    for value in settings.target_values:
        if not least <= value <= most:
            unit = {**problem.limited, **problem.objectives}[name].unit
            expected = f"{least:.4g} to {most:.4g} {unit}, the {name} of the space's architectures"
            raise ConfigError("search.algorithm.target_values", value, expected)
    if settings.target_values:
        return list(settings.target_values)
    for limit in problem.constraints:
        if limit.objective == name:
            upper = limit.relation in ("<", "<=")
            most = min(most, limit.limit) if upper else most
            least = least if upper else max(least, limit.limit)
    if most <= 0:
        raise ConfigError("search.algorithm.cost", name, "an objective whose values are above 0")
    least = max(least, most / WIDEST_RANGE)
    grid = np.geomspace(least, max(most, least), settings.targets).tolist()
    ordered = [grid.pop()]
    while grid:
        ordered.append(max(grid, key=lambda x: min(abs(np.log(x / y)) for y in ordered)))
        grid.remove(ordered[-1])
    return [float(target) for target in ordered]


def _extreme(problem: SearchProblem, name: str, sign: int, rng: np.random.Generator) -> float:
    """Return the smallest cost, or with `sign` -1 the largest, that coordinate descent finds."""

    def costs(genotypes: Sequence[Genotype]) -> list[float]:
        return [sign * float(x) for x in problem.known_columns(genotypes, {name})[name]]

    space = problem.space
    drawn = [tuple(row) for row in space.samples(RANGE_SAMPLE, rng).tolist()]
    least, best = min(zip(costs(drawn), drawn, strict=True))
    reached = np.inf
    while least < reached:
        reached = least
        for gene, size in enumerate(space.cardinalities):
            tried = [space.canonical([*best[:gene], i, *best[gene + 1 :]]) for i in range(size)]
            least, best = min((least, best), *zip(costs(tried), tried, strict=True))
    return sign * least
