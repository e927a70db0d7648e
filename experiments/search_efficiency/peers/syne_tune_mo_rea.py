"""Syne Tune's multi-objective regularised evolution (MO-REA).

Its priority is corrected here. Parents are those with the smallest score, and `MOPriority` promises
one score an element; but `NonDominatedPriority.priority_unsafe` (Syne Tune 0.16.0,
`optimizer/schedulers/multiobjective/multiobjective_priority.py`) returns `nondominated_sort(...)`,
the elements' indices in sorted order, so that the score of element `i` is which element came
`i`-th. Within a front that order is wrong as well: `compute_epsilon_net`
(`non_dominated_priority.py`) returns ranks, and `nondominated_sort` uses them as indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from _shared.table_task import TableTask

from nas.core.space import Genotype
from peers import Optimiser, Peer


@dataclass(frozen=True, kw_only=True)
class SyneTuneMoRea(Peer):
    """Evolution in which the oldest die.

    Attributes:
        population: Architectures that live.
        sample_size: Of them, how many compete for being the parent.
    """

    population: int = 20
    sample_size: int = 10

    label: ClassVar[str] = "Syne Tune MO-REA, corrected"
    packages: ClassVar[tuple[str, ...]] = ("syne-tune",)

    def start(self, task: TableTask, seed: int) -> Optimiser:
        return _MoRea(task, seed, self)


class _MoRea(Optimiser):
    """A run of the searcher, by its own interface."""

    def __init__(self, task: TableTask, seed: int, settings: SyneTuneMoRea) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.multiobjective import (
            multi_objective_regularized_evolution as module,
        )

        self._names = [gene.name for gene in task.problem.space.genes]
        space = task.problem.space
        # Its own first draws come from NumPy's global stream, whatever the seed.
        rng = np.random.default_rng(seed)
        first = [space.sample(rng) for _ in range(settings.population)]
        self._searcher = module.MultiObjectiveRegularizedEvolution(
            config_space={
                gene.name: choice(list(range(len(gene.choices)))) for gene in space.genes
            },
            points_to_evaluate=[self._configuration(genotype) for genotype in first],
            population_size=settings.population,
            sample_size=settings.sample_size,
            multiobjective_priority=corrected_priority(),
            random_seed=seed,
        )
        self._asked = 0

    def ask(self) -> Genotype:
        configuration = self._searcher.suggest()
        return tuple(int(configuration[name]) for name in self._names)

    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        self._searcher.on_trial_complete(self._asked, self._configuration(genotype), list(values))
        self._asked += 1

    def _configuration(self, genotype: Genotype) -> dict[str, int]:
        return dict(zip(self._names, genotype, strict=True))


def corrected_priority() -> Any:
    """Return a priority that is each element's place: by front, then by the epsilon net."""
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import (
        NonDominatedPriority,
    )
    from syne_tune.optimizer.schedulers.multiobjective.non_dominated_priority import (
        compute_epsilon_net,
        pareto_efficient,
    )

    class CorrectedPriority(NonDominatedPriority):  # type: ignore[misc]
        def priority_unsafe(self, objectives: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
            places = np.zeros(len(objectives), np.int64)
            remaining = np.arange(len(objectives))
            while len(remaining):
                front = pareto_efficient(objectives[remaining])
                placed = len(objectives) - len(remaining)
                of_front = objectives[remaining[front]]
                places[remaining[front]] = placed + compute_epsilon_net(of_front, dim=self.dim)
                remaining = remaining[~front]
            return places

    return CorrectedPriority()
