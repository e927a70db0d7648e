"""Predictor-guided multi-objective search, the default.

Training is what a search costs; latency, memory and counts of an architecture are known for next to
nothing. So the objectives that `SearchProblem.known` tells are taken as functions that can be asked
for every architecture, and only the others are learned, by the models of `nas.search.surrogates`.
The next architecture is the one whose expected hypervolume improvement is largest, given that those
still under evaluation turn out as predicted ("kriging believer": Ginsbourger, Le Riche and Carraro,
2010). A space that can be enumerated is looked through as a whole; in a larger one, candidates
evolve towards larger expected improvement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pymoo.operators.crossover.ux import UX

from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.network.blocks import IntArray
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.operators import GeneMutation, offspring
from nas.search.problem import SearchProblem
from nas.search.proposer import Proposer
from nas.search.surrogates.acquisition import Acquisition, Candidates
from nas.search.surrogates.features import Features
from nas.search.surrogates.scores import ScoredFeatures

LEAST_TRIALS = 5
"""Complete trials from which models learn; until then architectures are drawn at random."""

CROSSOVER_PROBABILITY, MUTATED_GENES = 0.5, 1.5
"""Of the evolution of candidates: that two parents exchange genes, and mutated genes of a child."""


@register("guided")
@dataclass(frozen=True, kw_only=True)
class GuidedSettings(AlgorithmSettings):
    """Settings of guided search.

    Attributes:
        initial: Architectures that models learn from before they choose, those of a warm start
            among them.
        candidates: Architectures among which is chosen, where the space is larger.
        generations: In which these evolve, for each proposal.
        enumerable: Up to so many genotypes, all of them are candidates.
        proxy: Name of a zero-cost proxy, whose scores of `scored` random architectures are learned
            before the search; what it would say of candidates is then a feature of theirs. Empty
            for none.
        scored: Architectures that it scores.
    """

    initial: int = 10
    candidates: int = 1000
    generations: int = 4
    enumerable: int = 50_000
    proxy: str = ""
    scored: int = 128

    def __post_init__(self) -> None:
        """Check every setting."""
        least_of = {"initial": 1, "candidates": 10, "generations": 1, "scored": 10}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                setting = f"search.algorithm.{name}"
                raise ConfigError(setting, getattr(self, name), f"{least} or more")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        return Guided(problem, seed, self)


class Guided(Proposer):
    """A run of guided search."""

    multi_fidelity: ClassVar[bool] = True

    def __init__(self, problem: SearchProblem, seed: int, settings: GuidedSettings) -> None:
        """Search `problem` with the random stream of `seed`."""
        super().__init__(problem, seed)
        self._settings = settings
        self._mutation = GeneMutation(problem.space.genes, MUTATED_GENES)
        self._crossover = UX(prob=CROSSOVER_PROBABILITY)
        self._features: Features | ScoredFeatures = Features(problem.space)
        if problem.scored is not None:
            self._features = ScoredFeatures(self._features, problem.scored)
        every = problem.space.every(settings.enumerable)
        self._whole = None if every is None else self._candidates(every)
        self._base = self._whole or self._sampled(settings.candidates)
        self._acquisition = Acquisition(problem, self._features.groups, self._base)
        self._plan: list[Genotype] | None = None
        self._failed: set[Genotype] = set()
        self._trials: list[Trial] = []
        self._rows = self._features([])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from complete trials; a failed promotion is not waited for any more."""
        super().tell(trials)
        self._failed.update(trial.genotype for trial in trials if not trial.complete)

    def _learn(self, trials: Sequence[Trial]) -> None:
        self._trials += trials

    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        """Return one architecture, since it is pending when the next one is chosen."""
        del n
        if self._plan is None:
            self._plan = self._stratified()
        while self._plan and len(self.seen) < self._settings.initial:
            genotype = self._plan.pop()
            if genotype not in self.seen:
                return [genotype]
        if len(self._trials) < LEAST_TRIALS:
            return []
        chosen = self._chosen(pending)
        return [] if chosen is None else [chosen]

    def _candidates(self, genotypes: IntArray | Sequence[Genotype]) -> Candidates:
        matrix = self.problem.space.matrix(genotypes)
        return Candidates(self.problem, self._features, matrix)

    def _sampled(self, count: int) -> Candidates:
        return self._candidates(np.unique(self.problem.space.samples(count, self.rng), axis=0))

    def _stratified(self) -> list[Genotype]:
        """Return the first proposals: one of every stratum of the first known objective."""
        base, count = self._base, self._settings.initial
        rows = self.rng.permutation(np.flatnonzero(base.feasible))
        if len(rows) < count:
            return []
        for name in self.problem.objectives:
            if name in base.known:
                rows = rows[np.argsort(base.known[name][rows], kind="stable")]
                break
        chosen = [self.rng.choice(stratum) for stratum in np.array_split(rows, count)]
        return [base.tuples[row] for row in self.rng.permutation(chosen)]

    def _chosen(self, pending: Sequence[Genotype]) -> Genotype | None:
        """Return the architecture of the largest expected gain; `None` where none is new."""
        new = [trial.genotype for trial in self._trials[len(self._rows) :]]
        self._rows = np.vstack([self._rows, self._features(new)])
        unsettled = self._candidates([*pending, *self._partly_trained(pending)])
        self._acquisition.learn(self._trials, self._rows, unsettled)
        if self._whole is None:
            return self._evolved()
        rows, scores = self._scored(self._whole)
        return self._whole.tuples[rows[scores.argmax()]] if len(rows) else None

    def _partly_trained(self, pending: Sequence[Genotype]) -> list[Genotype]:
        partial = dict.fromkeys(trial.genotype for trial in self._trials if not trial.full)
        settled = {trial.genotype for trial in self._trials if trial.full} | self._failed
        return [g for g in partial if g not in settled and g not in pending]

    def _evolved(self) -> Genotype | None:
        """Let candidates evolve towards larger gains, from the front and random architectures."""
        space, settings = self.problem.space, self._settings
        count = settings.candidates // (settings.generations + 1)
        front = space.matrix(self._acquisition.front)
        scores: dict[Genotype, float] = {}
        parents, drawn = front, space.samples(count, self.rng)
        for _ in range(settings.generations):
            children = offspring(space, parents, count, self.rng, self._mutation, self._crossover)
            distinct = np.unique(np.vstack([drawn, children]), axis=0)
            fresh = [genotype not in scores for genotype in map(tuple, distinct.tolist())]
            candidates = self._candidates(distinct[fresh])
            rows, gains = self._scored(candidates)
            scores |= {candidates.tuples[row]: gain for row, gain in zip(rows, gains, strict=True)}
            best = sorted(scores, key=scores.__getitem__, reverse=True)[: count // 4]
            parents = np.vstack([front, np.array(best, np.int64).reshape(-1, front.shape[1])])
            drawn = drawn[:0]
        return max(scores, key=scores.__getitem__, default=None)

    def _scored(self, candidates: Candidates) -> tuple[IntArray, FloatArray]:
        """Return the rows of those that are new and feasible, and their scores."""
        rows = candidates.eligible(self.seen)
        return rows, self._acquisition.scores(candidates)[rows] if len(rows) else np.empty(0)
