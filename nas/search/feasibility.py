"""What a search can reach, before anything is trained: limits that are met, ranges of objectives.

Random architectures tell how much of a space the limits leave. They crowd in its middle, so walks
from the extreme ones, by changes of two genes, tell how far objectives reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nas.core.errors import ConfigError
from nas.core.objective import Constraint
from nas.core.space import Genotype
from nas.search.problem import SearchProblem

SAMPLES = 1000
"""Random architectures that are looked at."""

STEPS, NEIGHBOURS = 12, 32
"""Of a walk: its steps, and the architectures among which each of them chooses."""


@dataclass
class Range:
    """Smallest and largest value that was seen; infinite the wrong way round where none was."""

    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        """Take note of a value; one that is not a number is left out."""
        if not math.isnan(value):
            self.low, self.high = min(self.low, value), max(self.high, value)

    @property
    def empty(self) -> bool:
        """Whether no value was seen."""
        return self.low > self.high


@dataclass
class FeasibilityReport:
    """What is known of a space and its limits before anything is trained.

    Attributes:
        samples: Architectures that were drawn at random.
        feasible: Those among them that keep every limit that is known before training.
        keeping: How many of them keep a limit by itself, by limit; those that only training or a
            calibration can judge are left out.
        reach: Range of every objective and limited value that is known, over all architectures
            that were looked at.
        within: The same over those that keep every known limit.
    """

    samples: int
    feasible: list[Genotype] = field(default_factory=list)
    keeping: dict[Constraint, int] = field(default_factory=dict)
    reach: dict[str, Range] = field(default_factory=dict)
    within: dict[str, Range] = field(default_factory=dict)


def feasibility_report(
    problem: SearchProblem, rng: np.random.Generator, samples: int = SAMPLES
) -> FeasibilityReport:
    """Sample a space, and walk to where its objectives are extreme.

    Raises:
        ConfigError: An objective is known before training and never a number.
    """
    drawn = [tuple(row) for row in problem.space.samples(samples, rng).tolist()]
    known = problem.known(drawn)
    found = FeasibilityReport(samples)
    judged = [c for c in problem.constraints if c.objective in known[0]]
    found.keeping = {c: sum(c.met(row[c.objective]) for row in known) for c in judged}
    _note(found, judged, known)
    pairs = zip(drawn, known, strict=True)
    found.feasible = [genotype for genotype, row in pairs if _meets(judged, row)]
    for name, seen in found.reach.items():
        if seen.empty:
            expected = f"an objective with values: it is NaN for all of {samples} architectures"
            raise ConfigError("search.objectives", name, expected)
        for sign in (1, -1):
            values = [sign * row[name] for row in known]
            start = drawn[int(np.nanargmin(values))]
            _note(found, judged, _walk(problem, rng, start, _valued(name, sign)))
    return found


def _valued(name: str, sign: int) -> Callable[[Mapping[str, float]], float]:
    def value(row: Mapping[str, float]) -> float:
        return math.inf if math.isnan(row[name]) else sign * row[name]

    return value


def _walk(
    problem: SearchProblem,
    rng: np.random.Generator,
    start: Genotype,
    value: Callable[[Mapping[str, float]], float],
) -> list[dict[str, float]]:
    """Go from architecture to better neighbour; return what is known of all that were seen."""
    seen: list[dict[str, float]] = []
    here, least = start, math.inf
    for _ in range(STEPS):
        near = [problem.space.mutate(here, rng, genes=2) for _ in range(NEIGHBOURS)]
        rows = problem.known(near)
        seen += rows
        best = min(range(NEIGHBOURS), key=lambda i: value(rows[i]))
        if value(rows[best]) < least:
            here, least = near[best], value(rows[best])
    return seen


def _meets(judged: Iterable[Constraint], row: Mapping[str, float]) -> bool:
    return all(constraint.met(row[constraint.objective]) for constraint in judged)


def _note(found: FeasibilityReport, judged: list[Constraint], rows: list[dict[str, float]]) -> None:
    for row in rows:
        ranges = [found.reach, found.within] if _meets(judged, row) else [found.reach]
        for kind in ranges:
            for name, value in row.items():
                kind.setdefault(name, Range()).add(value)
