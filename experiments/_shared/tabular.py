"""A published table as a search problem in memory, for comparing algorithms.

It needs neither Hydra nor Ray and answers thousands of trials a second. A study with records is
`nas search experiment=nasbench201`.

    benchmark = TabularBenchmark.load("nasbench201", "cifar10", ["pixel3", "raspi4"])
    algorithm = algorithms.get("nsga2").start(benchmark.problem, seed=0)
    [genotype] = algorithm.ask(1)
    algorithm.tell([benchmark.trial(0, genotype)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import search_spaces
from nas import objectives, tables
from nas.core.objective import Constraint, Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.problem import SearchProblem
from nas.tables import Table


@dataclass(frozen=True, kw_only=True)
class TabularBenchmark:
    """One data set and one or several devices of a table.

    Attributes:
        table: Answers.
        dataset: Of the table.
        epochs: Of the training whose error is the objective.
        devices: Whose latencies are objectives.
        problem: `error`, which an evaluation tells, and `latency_ms_DEVICE` of every device, which
            are known beforehand.
    """

    table: Table
    dataset: str
    epochs: int
    devices: tuple[str, ...]
    problem: SearchProblem

    @classmethod
    def load(
        cls,
        table: str,
        dataset: str,
        devices: Sequence[str],
        *,
        epochs: int | None = None,
        constraints: Sequence[str] = (),
        merge_equal: bool = False,
    ) -> TabularBenchmark:
        """Make the problem of a table.

        Args:
            table: Name of the table.
            dataset: Of the table.
            devices: Of the table.
            epochs: Of the training whose error counts; `None` for the longest.
            constraints: Limits, such as `latency_ms_pixel3 <= 5`.
            merge_equal: Whether genotypes that are one network count as one; see the space. The
                figures that are published of a table are of all its rows.

        Raises:
            ConfigError: The table has no such data set, epochs or device.
        """
        held = tables.get(table)
        data = held.dataset(dataset)
        epochs = max(data.splits) if epochs is None else epochs
        held.split(dataset, epochs)
        space = search_spaces.get(
            held.space,
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            merge_equal=merge_equal,
        )
        latencies = {f"latency_ms_{name}": held.latency_ms(name) for name in devices}
        chosen: dict[str, Objective] = {"error": objectives.get("error")} | {
            f"latency_ms_{name}": objectives.get("latency_ms_published", device=name)
            for name in devices
        }

        def published_ms(genotypes: Sequence[Genotype], device: str | None) -> FloatArray:
            return latencies[f"latency_ms_{device}"][held.rows(genotypes)]

        problem = SearchProblem(
            space=space,
            objectives=chosen,
            constraints=tuple(map(Constraint.parse, constraints)),
            limited={},
            facts=Facts(space.costs, None, published_ms=published_ms),
        )
        return cls(
            table=held, dataset=dataset, epochs=epochs, devices=tuple(devices), problem=problem
        )

    def points(self, epochs: int | None = None) -> FloatArray:
        """Return the objectives of every row of the table, shape `(n, 1 + devices)`.

        Args:
            epochs: Of the training whose errors are returned; `None` for the benchmark's own.
        """
        errors = self.table.error(self.dataset, epochs or self.epochs)
        return np.stack([errors, *map(self.table.latency_ms, self.devices)], axis=1)

    def trial(self, number: int, genotype: Genotype, epochs: int | None = None) -> Trial:
        """Return the trial that evaluating a canonical genotype gives; it takes no time.

        Args:
            number: Of the trial.
            genotype: What an algorithm asked for.
            epochs: Of the training; `None` for the benchmark's own. The trial's fidelity is their
                share of it.
        """
        points, seconds = self._answers[epochs or self.epochs]
        row = int(self.table.rows([genotype])[0])
        return Trial(
            number=number,
            genotype=genotype,
            arch_id=self.problem.space.architecture(genotype).arch_id,
            seed=0,
            fidelity=(epochs or self.epochs) / self.epochs,
            values=dict(zip(self.problem.objectives, points[row].tolist(), strict=True)),
            seconds=float(seconds[row]),
        )

    @cached_property
    def _answers(self) -> dict[int, tuple[FloatArray, FloatArray]]:
        """Objectives and seconds of every row, by the epochs of the training."""
        splits = self.table.dataset(self.dataset).splits
        return {n: (self.points(n), self.table.seconds(self.dataset, n)) for n in splits}
