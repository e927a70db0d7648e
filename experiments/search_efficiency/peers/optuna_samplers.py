"""Optuna's samplers, each in a multi-objective study in memory with categorical parameters."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from _shared.table_task import TableTask

from nas.core.space import Genotype
from peers import Limits, Optimiser, Peer

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


class OptunaStudy(Optimiser):
    """A study, used as Optuna's documentation says."""

    def __init__(self, task: TableTask, sampler: BaseSampler) -> None:
        """Start a study of `task`."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._genes = task.problem.space.genes
        self._study = optuna.create_study(
            directions=["minimize"] * task.objectives, sampler=sampler
        )
        self._asked: Trial | None = None

    def ask(self) -> Genotype:
        self._asked = self._study.ask()
        choices = [
            self._asked.suggest_categorical(gene.name, range(len(gene.choices)))
            for gene in self._genes
        ]
        return tuple(choices)

    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        del genotype
        if self._asked is None:
            raise RuntimeError("tell: got values before anything was asked for")
        self._study.tell(self._asked, values)


@dataclass(frozen=True, kw_only=True)
class OptunaPeer(Peer):
    """A sampler of Optuna."""

    packages: ClassVar[tuple[str, ...]] = ("optuna",)

    def start(self, task: TableTask, seed: int) -> Optimiser:
        return OptunaStudy(task, self.sampler(seed))

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """Return the sampler of a run."""


@dataclass(frozen=True, kw_only=True)
class OptunaGp(OptunaPeer):
    """Gaussian processes and the logarithm of the expected hypervolume improvement."""

    label: ClassVar[str] = "Optuna GP"
    limits: ClassVar[Limits] = Limits(seeds=3, evaluations=100)

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import GPSampler

        with warnings.catch_warnings():
            # A table answers the same each time, which the sampler takes only experimentally.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return GPSampler(seed=seed, deterministic_objective=True)


@dataclass(frozen=True, kw_only=True)
class OptunaNsga2(OptunaPeer):
    """With a population that suits some hundred evaluations; the sampler's default is 50.

    Attributes:
        population: Architectures of a generation.
    """

    population: int = 20

    label: ClassVar[str] = "Optuna NSGA-II"

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)


@dataclass(frozen=True, kw_only=True)
class OptunaTpe(OptunaPeer):
    """The TPE sampler as it is by default: every gene has a density of its own.

    It proposes architectures again that it has seen, which costs it no evaluation here, but the
    time of a proposal grows with their number: 200 distinct ones took 700 proposals and 6 s, 300
    took 2,800 and 2 minutes. Its runs end at 200.
    """

    label: ClassVar[str] = "Optuna TPE, default"
    limits: ClassVar[Limits] = Limits(evaluations=200)

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed)


@dataclass(frozen=True, kw_only=True)
class OptunaTpeMultivariate(OptunaPeer):
    """With a joint density (Falkner et al., ICML 2018) few architectures are proposed again.

    Its best setting on the table.
    """

    label: ClassVar[str] = "Optuna TPE, multivariate"

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, multivariate=True)
