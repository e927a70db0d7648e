"""Architectures among which a search chooses, with what is known of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace
from nas.search.problem import SearchProblem
from nas.search.surrogates.features import Features, Group

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Candidates:
    """Canonical genotypes, their features and what is known of them before training.

    Attributes:
        genotypes: Shape `(n, g)`.
    """

    def __init__(self, problem: SearchProblem, features: Features, genotypes: IntArray) -> None:
        """Describe canonical `genotypes`, shape `(n, g)`."""
        self._problem = problem
        self._features = features
        self.genotypes = genotypes

    def __len__(self) -> int:
        return len(self.genotypes)

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the features."""
        return self._features.groups

    @cached_property
    def tuples(self) -> list[Genotype]:
        """The genotypes as the rest of a search has them."""
        return [tuple(row) for row in self.genotypes.tolist()]

    @cached_property
    def features(self) -> FloatArray:
        """See `Features`, shape `(n, p)`."""
        return self._features(self.genotypes)

    @cached_property
    def known(self) -> Mapping[str, FloatArray]:
        """Objectives and limited values that are known before training, each of shape `(n,)`."""
        rows = self._problem.known(self.tuples)
        names = {**self._problem.limited, **self._problem.objectives}
        return {n: np.array([row[n] for row in rows]) for n in names if not rows or n in rows[0]}

    @cached_property
    def feasible(self) -> BoolArray:
        """Whether no limit is known to be broken, shape `(n,)`."""
        return self._problem.feasible_rows(self.tuples)

    def refresh(self) -> None:
        """Ask anew for what is known if that has changed: a latency predictor may learn."""
        now = self._problem.known(self.tuples[:1])[0]
        # Many rows at once may be rounded otherwise than a single one.
        if not all(math.isclose(now[name], values[0]) for name, values in self.known.items()):
            del self.known
            self.__dict__.pop("feasible", None)

    def unseen(self, seen: Collection[Genotype]) -> BoolArray:
        """Return which are not among `seen`, shape `(n,)`."""
        return np.array([genotype not in seen for genotype in self.tuples], bool)


def enumerate_space(space: SearchSpace, most: int) -> IntArray | None:
    """Return all canonical genotypes in lexical order; `None` where there may be over `most`."""
    sizes = space.cardinalities
    if math.prod(sizes) > most:
        return None
    every = np.indices(sizes).reshape(len(sizes), -1).T
    return np.unique(space.canonicalise(np.ascontiguousarray(every)), axis=0)
