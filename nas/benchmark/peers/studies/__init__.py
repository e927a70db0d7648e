"""Studies of Optuna, used as its documentation says, for the peers that are samplers of it."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from nas.benchmark.peers import Optimiser
from nas.benchmark.task import Task
from nas.core.space import Genotype
from nas.search.algorithms.samplers.run import quiet


class OptunaStudy(Optimiser):
    """A multi-objective study in memory; genes are categorical parameters."""

    def __init__(self, task: Task, sampler: BaseSampler) -> None:
        """Start a study of `task`."""
        self._genes = task.table.problem.space.genes
        with quiet():
            self._study = optuna.create_study(
                directions=["minimize"] * task.objectives, sampler=sampler
            )
        self._asked: Trial | None = None

    def ask(self) -> Genotype:
        """Propose a genotype; see `Optimiser.ask`."""
        self._asked = self._study.ask()
        choices = [
            self._asked.suggest_categorical(gene.name, range(len(gene.choices)))
            for gene in self._genes
        ]
        return tuple(choices)

    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        """Finish the trial; see `Optimiser.tell`."""
        del genotype
        if self._asked is None:
            raise RuntimeError("tell: got values before anything was asked for")
        self._study.tell(self._asked, values)
