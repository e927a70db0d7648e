"""A published table as a search problem in memory, for comparing algorithms.

It needs neither Hydra nor Ray and answers thousands of trials a second. A study with records is
`nas search experiment=nasbench201`.

    benchmark = TabularBenchmark.load("nasbench201", "cifar10", ["pixel3", "raspi4"])
    algorithm = algorithms.get("nsga2").start(benchmark.problem, seed=0)
    [genotype] = algorithm.ask(1)
    algorithm.tell([benchmark.trial(0, genotype)])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

import search_spaces
from nas import objectives, tables
from nas.core.errors import UnknownNameError
from nas.core.objective import Constraint, Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.space import SearchSpace
from nas.search.problem import SearchProblem
from nas.tables import Table, TableCost


@dataclass(frozen=True, kw_only=True)
class TabularBenchmark:
    """One data set and one or several costs of a table.

    Attributes:
        table: Answers.
        dataset: Of the table.
        epochs: Of the training whose error is the objective.
        costs: Of the table: names of columns that are objectives.
        problem: `error`, which an evaluation tells, and the objective of every cost
            (`latency_ms_pixel3`, `params_m`), which are known beforehand.
    """

    table: Table
    dataset: str
    epochs: int
    costs: tuple[str, ...]
    problem: SearchProblem

    @classmethod
    def load(
        cls,
        table: str,
        dataset: str,
        costs: Sequence[str],
        *,
        epochs: int | None = None,
        constraints: Sequence[str] = (),
        space_settings: Mapping[str, Any] | None = None,
    ) -> TabularBenchmark:
        """Make the problem of a table.

        Args:
            table: Name of the table.
            dataset: Of the table.
            costs: Of the table.
            epochs: Of the training whose error counts; `None` for the longest.
            constraints: Limits on objectives or on any other cost of the table, such as
                `latency_ms_pixel3 <= 5`.
            space_settings: Of the space in place of the table's, under which every row is an
                architecture of its own.

        Raises:
            ConfigError: The table has no such data set, epochs or cost, or neither it nor the
                space tells what a constraint is on.
        """
        held = tables.get(table)
        data = held.dataset(dataset)
        epochs = max(data.splits) if epochs is None else epochs
        held.split(dataset, epochs)
        space = search_spaces.get(
            held.space,
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            **(held.space_settings if space_settings is None else space_settings),
        )

        problem = published_problem(
            space,
            held.costs,
            costs,
            constraints,
            lambda name, rows: held.cost(name)[held.rows(rows)],
        )
        return cls(table=held, dataset=dataset, epochs=epochs, costs=tuple(costs), problem=problem)

    def row(self, genotype: Genotype) -> int:
        """Return the row of a canonical genotype."""
        return int(self.table.rows([genotype])[0])

    def values(self, rows: Sequence[int]) -> FloatArray:
        """Return the objectives of rows, shape `(n, 1 + costs)`."""
        return self._answers[self.epochs][0][np.array(rows, np.int64)]

    def points(self, epochs: int | None = None) -> FloatArray:
        """Return the objectives of every row of the table, shape `(n, 1 + costs)`.

        Args:
            epochs: Of the training whose errors are returned; `None` for the benchmark's own.
        """
        errors = self.table.error(self.dataset, self.epochs if epochs is None else epochs)
        return np.stack([errors, *map(self.table.cost, self.costs)], axis=1)

    def trial(self, number: int, genotype: Genotype, epochs: int | None = None) -> Trial:
        """Return the trial that evaluating a canonical genotype gives; it takes no time.

        Args:
            number: Of the trial.
            genotype: What an algorithm asked for.
            epochs: Of the training; `None` for the benchmark's own. The trial's fidelity is their
                share of it.
        """
        epochs = self.epochs if epochs is None else epochs
        points, seconds = self._answers[epochs]
        row = self.row(genotype)
        share = 1.0 if epochs == self.epochs else epochs / self.epochs
        return published_trial(self.problem, number, genotype, points[row], seconds[row], share)

    @cached_property
    def _answers(self) -> dict[int, tuple[FloatArray, FloatArray]]:
        """Objectives and seconds (1 where none is published) of all rows, by the epochs."""
        answers = {}
        for epochs in self.table.dataset(self.dataset).splits:
            points, seconds = self.points(epochs), self.table.seconds(self.dataset, epochs)
            answers[epochs] = points, np.ones(len(points)) if seconds is None else seconds
        return answers


def published_problem(
    space: SearchSpace,
    costs: Mapping[str, TableCost],
    chosen: Sequence[str],
    constraints: Sequence[str],
    values: Callable[[str, Sequence[Genotype]], FloatArray],
) -> SearchProblem:
    """Return the problem of making the error and some costs small.

    Args:
        space: To search.
        costs: All that there are, by name.
        chosen: Names of those that are objectives.
        constraints: Limits on objectives, on other costs, or on what the space counts.
        values: The values of a cost by its name, of canonical genotypes.

    Raises:
        ConfigError: A name is not known, or a limit is on something that nothing tells.
    """
    for name in chosen:
        if name not in costs:
            raise UnknownNameError("cost", name, costs, "a cost of the table:")
    objective_of = {
        cost.objective: _published(cost, partial(values, name)) for name, cost in costs.items()
    }
    sought = {"error": objectives.get("error")} | {
        costs[name].objective: objective_of[costs[name].objective] for name in chosen
    }
    facts = Facts(space.costs, None)
    counted = {name: objectives.get(name) for name in objectives.names()}
    known = {
        name: objective
        for name, objective in counted.items()
        if not objective.needs_training and objective.ready(facts)
    } | objective_of
    parsed = tuple(map(Constraint.parse, constraints))
    limits = [c.objective for c in parsed if c.objective not in sought]
    for name in limits:
        if name not in known:
            raise UnknownNameError("search.constraints", name, {**sought, **known}, "a limit on")
    return SearchProblem(
        space=space,
        objectives=sought,
        constraints=parsed,
        limited={name: known[name] for name in limits},
        facts=facts,
    )


def published_trial(
    problem: SearchProblem,
    number: int,
    genotype: Genotype,
    values: FloatArray,
    seconds: float,
    fidelity: float = 1.0,
) -> Trial:
    """Return the trial of a canonical genotype whose objectives are known, shape `(m,)`."""
    limits = problem.known_columns([genotype], problem.limited)
    return Trial(
        number=number,
        genotype=genotype,
        arch_id=problem.space.architecture(genotype).arch_id,
        seed=0,
        fidelity=fidelity,
        values=dict(zip(problem.objectives, values.tolist(), strict=True)),
        facts={problem.limited[name].column: float(value[0]) for name, value in limits.items()},
        seconds=float(seconds),
    )


def _published(cost: TableCost, values: Callable[[Sequence[Genotype]], FloatArray]) -> Objective:
    """Return the objective of a cost, under its own name and unit."""

    @dataclass(frozen=True, kw_only=True)
    class Published(Objective):
        unit: ClassVar[str] = cost.unit
        column: ClassVar[str] = cost.objective

        def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
            del facts
            return values(genotypes)

    return Published()
