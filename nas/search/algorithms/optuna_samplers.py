"""Samplers of Optuna as search algorithms: TPE and NSGA-II."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState

from nas.core.errors import ConfigError
from nas.core.space import Gene, Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, GeneticSettings, register
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer

SUGGESTION_ATTEMPTS = 3
"""Suggestions taken for a new feasible genotype before the last one's neighbours are tried."""

NEIGHBOUR_ATTEMPTS = 100
"""Neighbours of a suggestion tried before a random architecture is proposed instead."""


@register("tpe")
@dataclass(frozen=True, kw_only=True)
class TpeSettings(AlgorithmSettings):
    """Settings of the tree-structured Parzen estimator.

    Attributes:
        startup: Complete trials before which architectures are drawn at random.
        candidates: Draws from the estimate of good architectures, of which the one with the largest
            expected improvement is proposed.
        multivariate: Whether the genes' densities are joint; by single genes, Optuna proposes what
            it has seen over and over (Falkner et al., ICML 2018, have them joint).
    """

    startup: int = 10
    candidates: int = 24
    multivariate: bool = True

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("startup", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.algorithm.{name}", getattr(self, name), "1 or more")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        sampler = TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            multivariate=self.multivariate,
            seed=seed,
        )
        return SamplerRun(problem, seed, sampler)


@register("optuna_nsga2")
@dataclass(frozen=True, kw_only=True)
class OptunaNsga2Settings(GeneticSettings):
    """Settings of Optuna's NSGA-II; a mutated gene is drawn anew, ordinal or not."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        sampler = NSGAIISampler(
            population_size=self.population,
            crossover_prob=self.crossover_probability,
            mutation_prob=min(1.0, self.mutated_genes / len(problem.space.genes)),
            seed=seed,
        )
        return SamplerRun(problem, seed, sampler)


class SamplerRun(Proposer):
    """A run of one of Optuna's samplers.

    A suggestion that was seen before, or breaks a limit known before training, fails in Optuna's
    study, and another one is taken. Where a sampler has converged and suggests nothing else, an
    architecture that differs in one gene is proposed. What Optuna did not suggest itself is added
    to its study when it is told.
    """

    def __init__(self, problem: SearchProblem, seed: int, sampler: BaseSampler) -> None:
        """Begin a search.

        Args:
            problem: What to search for.
            seed: Of the random architectures; the sampler has its own.
            sampler: Optuna's.
        """
        super().__init__(problem, seed)
        self._distributions = {gene.name: _distribution(gene) for gene in problem.space.genes}
        self._suggested: dict[Genotype, optuna.Trial] = {}
        with quiet():
            self._study = optuna.create_study(
                sampler=sampler, directions=["minimize"] * len(problem.objectives)
            )

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell Optuna's study of all trials, failed ones included."""
        super().tell(trials)
        with quiet():
            for trial in trials:
                self._record(trial)

    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        found: list[Genotype] = []
        with quiet():
            for refused in [g for g in self._suggested if g not in pending]:
                self._study.tell(self._suggested.pop(refused), state=TrialState.FAIL)
            while len(found) < n and (genotype := self._new(found)) is not None:
                found.append(genotype)
        return found

    def _new(self, found: Sequence[Genotype]) -> Genotype | None:
        """Return one more that is new and feasible; `None` where that is not found."""
        for _ in range(SUGGESTION_ATTEMPTS):
            suggested = self._study.ask(self._distributions)
            choices = [suggested.params[name] for name in self._distributions]
            admitted = self._admitted([choices])
            if admitted and admitted[0] not in found:
                self._suggested[admitted[0]] = suggested
                return admitted[0]
            self._study.tell(suggested, state=TrialState.FAIL)
        for _ in range(NEIGHBOUR_ATTEMPTS):
            admitted = self._admitted([self.problem.space.mutate(choices, self.rng)])
            if admitted and admitted[0] not in found:
                return admitted[0]
        return None

    def _record(self, trial: Trial) -> None:
        suggested = self._suggested.pop(trial.genotype, None)
        if suggested is None:
            choices = dict(zip(self._distributions, trial.genotype, strict=True))
            self._study.enqueue_trial(choices)
            suggested = self._study.ask(self._distributions)
        if not trial.complete:
            self._study.tell(suggested, state=TrialState.FAIL)
            return
        if self.problem.constraints:
            suggested.set_constraint("excess", self.problem.excess(trial))
        self._study.tell(suggested, self._objectives(trial))


def _distribution(gene: Gene) -> BaseDistribution:
    """Return the distribution of a gene's index; near choices of an ordinal gene are alike."""
    last = len(gene.choices) - 1
    return IntDistribution(0, last) if gene.ordinal else CategoricalDistribution(range(last + 1))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from writing that it has made a study, and that parts of it are new."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
