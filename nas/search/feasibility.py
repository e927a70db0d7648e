"""What a search can reach, before anything is trained: limits that are met, ranges of objectives.

Random architectures tell how much of a space the limits leave. They crowd in its middle, so walks
from the extreme ones, by changes of two genes, tell how far objectives reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nas.core.errors import ConfigError
from nas.core.objective import Constraint
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.search.problem import SearchProblem

SAMPLES = 1000
"""Random architectures that are looked at."""

STEPS, NEIGHBOURS = 12, 32
"""Of a walk: its steps, and the architectures among which each of them chooses."""


class Range(NamedTuple):
    """Smallest and largest value that was seen."""

    low: float
    high: float


@dataclass(frozen=True)
class FeasibilityReport:
    """What is known of a space and its limits before anything is trained.

    Attributes:
        samples: Architectures that were drawn at random.
        feasible: Those among them that keep every limit that is known before training.
        keeping: How many of them keep a limit by itself, by limit; those that only training or a
            calibration can judge are left out.
        reach: Range of every objective and limited value that is known, over all architectures
            that were looked at.
        within: The same over those that keep every known limit; empty where none does.
    """

    samples: int
    feasible: list[Genotype]
    keeping: dict[Constraint, int]
    reach: dict[str, Range]
    within: dict[str, Range]


def feasibility_report(
    problem: SearchProblem, rng: np.random.Generator, samples: int = SAMPLES
) -> FeasibilityReport:
    """Sample a space, and walk to where its objectives are extreme.

    Raises:
        ConfigError: An objective is known before training and never a number.
    """
    drawn = [tuple(row) for row in problem.space.samples(samples, rng).tolist()]
    known = problem.known_columns(drawn)
    looked_at = [known]
    for name, values in known.items():
        if np.isnan(values).all():
            expected = f"an objective with values: it is NaN for all of {samples} architectures"
            raise ConfigError("search.objectives", name, expected)
        for sign in (1, -1):
            start = drawn[int(np.nanargmin(sign * values))]
            looked_at += _walk(problem, rng, start, name, sign)
    every = {name: np.concatenate([columns[name] for columns in looked_at]) for name in known}
    judged = [c for c in problem.constraints if c.objective in known]
    met = {c: c.violation(every[c.objective]) <= 0 for c in judged}
    total = samples + NEIGHBOURS * (len(looked_at) - 1)
    kept = np.logical_and.reduce([np.ones(total, bool), *met.values()])
    return FeasibilityReport(
        samples=samples,
        feasible=[genotype for genotype, ok in zip(drawn, kept[:samples], strict=True) if ok],
        keeping={c: int(ok[:samples].sum()) for c, ok in met.items()},
        reach={name: _range(values) for name, values in every.items()},
        within={n: _range(v[kept]) for n, v in every.items() if not np.isnan(v[kept]).all()},
    )


def _walk(
    problem: SearchProblem, rng: np.random.Generator, start: Genotype, name: str, sign: int
) -> list[dict[str, FloatArray]]:
    """Go to better neighbours, by `sign` times one value; return what is known of all seen."""
    seen: list[dict[str, FloatArray]] = []
    here, least = start, math.inf
    for _ in range(STEPS):
        near = [problem.space.mutate(here, rng, genes=2) for _ in range(NEIGHBOURS)]
        seen.append(problem.known_columns(near))
        values = np.nan_to_num(sign * seen[-1][name], nan=math.inf)
        best = int(values.argmin())
        if values[best] < least:
            here, least = near[best], float(values[best])
    return seen


def _range(values: FloatArray) -> Range:
    return Range(float(np.nanmin(values)), float(np.nanmax(values)))
