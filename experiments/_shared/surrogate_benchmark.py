"""A whole search space, answered by surrogates that are fitted to a published sample of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

import search_spaces
from _shared.pair_ridge import PairRidge
from _shared.tabular import published_problem, published_trial
from nas import tables
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.problem import SearchProblem
from nas.tables import IntArray


@dataclass(frozen=True, kw_only=True)
class SurrogateBenchmark:
    """The error and some costs of every genotype of a space, as `PairRidge` predicts them.

    The error is predicted in percent, the logarithm of a cost. A genotype's row is its number in
    lexical order.

    Attributes:
        table: Whose rows the surrogates are fitted to.
        dataset: Of the table.
        costs: Of the table: those that are objectives.
        problem: As that of `TabularBenchmark`.
    """

    table: str
    dataset: str
    costs: tuple[str, ...]
    problem: SearchProblem

    @classmethod
    def load(
        cls, table: str, dataset: str, costs: Sequence[str], *, constraints: Sequence[str] = ()
    ) -> SurrogateBenchmark:
        """Make the problem of a table's whole space; see `TabularBenchmark.load`."""
        held = tables.get(table)
        data = held.dataset(dataset)
        space = search_spaces.get(
            held.space, input_shape=data.input_shape, num_classes=data.num_classes
        )

        def values(name: str, genotypes: Sequence[Genotype]) -> FloatArray:
            return predicted(table, dataset, name, space.matrix(genotypes))

        problem = published_problem(space, held.costs, costs, constraints, values)
        return cls(table=table, dataset=dataset, costs=tuple(costs), problem=problem)

    def row(self, genotype: Genotype) -> int:
        """Return the number of a genotype."""
        return int(np.ravel_multi_index(genotype, self.problem.space.cardinalities))

    def genotypes(self, rows: Sequence[int]) -> IntArray:
        """Return the genotypes of rows, shape `(n, g)`."""
        found = np.unravel_index(np.array(rows, np.int64), self.problem.space.cardinalities)
        return np.stack(found, axis=1)

    def values(self, rows: Sequence[int]) -> FloatArray:
        """Return error and costs of rows, shape `(n, 1 + costs)`."""
        return self.values_of(self.genotypes(rows))

    def values_of(self, genotypes: IntArray) -> FloatArray:
        """Return error and costs of genotypes, shape `(n, 1 + costs)`."""
        names = ("error", *self.costs)
        columns = [predicted(self.table, self.dataset, name, genotypes) for name in names]
        return np.stack(columns, axis=1)

    def trial(self, number: int, genotype: Genotype) -> Trial:
        """Return the trial that evaluating a genotype gives, of one second."""
        values = self.values_of(np.array([genotype]))[0]
        return published_trial(self.problem, number, genotype, values, 1.0)


def predicted(table: str, dataset: str, name: str, genotypes: IntArray) -> FloatArray:
    """Return the predicted `error` or cost of genotypes `(n, g)` of a whole space."""
    values = fitted(table, dataset)[name].predict(genotypes)
    return values if name == "error" else np.exp(values)


@lru_cache(maxsize=4)
def fitted(table: str, dataset: str) -> dict[str, PairRidge]:
    """Return the surrogates of the error and of every cost of a table."""
    return PairRidge.fit(*sample(table, dataset))


def sample(table: str, dataset: str) -> tuple[tuple[int, ...], IntArray, dict[str, FloatArray]]:
    """Return what surrogates are fitted to: numbers of choices, genotypes, targets by name."""
    held = tables.get(table)
    data = held.dataset(dataset)
    space = search_spaces.get(
        held.space, input_shape=data.input_shape, num_classes=data.num_classes
    )
    targets = {"error": held.error(dataset, max(data.splits))}
    targets |= {name: np.log(held.cost(name)) for name in held.costs}
    return space.cardinalities, held.genotypes, targets
