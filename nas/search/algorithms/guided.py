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
import numpy.typing as npt

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.network.blocks import IntArray
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem
from nas.search.surrogates.candidates import Candidates, enumerate_space, offspring
from nas.search.surrogates.features import Features
from nas.search.surrogates.outlook import Outlook

FloatArray = npt.NDArray[np.float64]

LEAST_TRIALS = 5
"""Complete trials from which models learn; until then architectures are drawn at random."""


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
    """

    initial: int = 10
    candidates: int = 1000
    generations: int = 4
    enumerable: int = 50_000

    def __post_init__(self) -> None:
        """Check every setting."""
        for name, least in (("initial", 1), ("candidates", 10), ("generations", 1)):
            if getattr(self, name) < least:
                setting = f"search.algorithm.{name}"
                raise ConfigError(setting, getattr(self, name), f"{least} or more")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        return Guided(problem, seed, self)


class Guided(SearchAlgorithm):
    """A run of guided search."""

    multi_fidelity: ClassVar[bool] = True

    def __init__(self, problem: SearchProblem, seed: int, settings: GuidedSettings) -> None:
        """Search `problem` with the random stream of `seed`."""
        self._problem = problem
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._features = Features(problem.space)
        every = enumerate_space(problem.space, settings.enumerable)
        self._whole = None if every is None else self._candidates(every)
        self._base = self._whole or self._sampled(settings.candidates)
        self._outlook = Outlook(problem, self._base)
        self._plan: list[Genotype] | None = None
        self._seen: set[Genotype] = set()
        self._failed: set[Genotype] = set()
        self._pending: dict[Genotype, None] = {}
        self._trials: list[Trial] = []
        self._rows = self._features([])

    def ask(self, n: int) -> list[Genotype]:
        """Propose `n` new genotypes; see `SearchAlgorithm.ask`."""
        proposed: list[Genotype] = []
        for _ in range(n):
            genotype = self._next()
            if genotype is None:
                break
            self._seen.add(genotype)
            self._pending[genotype] = None
            proposed.append(genotype)
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from complete trials; failed ones are only never proposed again."""
        for trial in trials:
            self._seen.add(trial.genotype)
            self._pending.pop(trial.genotype, None)
            if trial.complete:
                self._trials.append(trial)
            else:
                self._failed.add(trial.genotype)

    def _candidates(self, genotypes: IntArray | Sequence[Genotype]) -> Candidates:
        matrix = self._problem.space.matrix(genotypes)
        return Candidates(self._problem, self._features, matrix)

    def _sampled(self, count: int) -> Candidates:
        return self._candidates(np.unique(self._problem.space.samples(count, self._rng), axis=0))

    def _next(self) -> Genotype | None:
        if self._plan is None:
            self._plan = self._stratified()
        while self._plan and len(self._seen) < self._settings.initial:
            genotype = self._plan.pop()
            if genotype not in self._seen:
                return genotype
        chosen = self._chosen() if len(self._trials) >= LEAST_TRIALS else None
        return chosen or self._problem.sample_feasible(self._rng, self._seen)

    def _stratified(self) -> list[Genotype]:
        """Return the first proposals: one of every stratum of the first known objective."""
        base, count = self._base, self._settings.initial
        rows = self._rng.permutation(np.flatnonzero(base.feasible))
        if len(rows) < count:
            return []
        for name in self._problem.objectives:
            if name in base.known:
                rows = rows[np.argsort(base.known[name][rows], kind="stable")]
                break
        chosen = [self._rng.choice(stratum) for stratum in np.array_split(rows, count)]
        return [base.tuples[row] for row in self._rng.permutation(chosen)]

    def _chosen(self) -> Genotype | None:
        """Return the architecture of the largest expected gain; `None` where none is new."""
        new = [trial.genotype for trial in self._trials[len(self._rows) :]]
        self._rows = np.vstack([self._rows, self._features(new)])
        self._outlook.learn(self._trials, self._rows)
        unsettled = self._candidates([*self._pending, *self._partly_trained()])
        if self._whole is None:
            return self._evolved(unsettled)
        rows, scores = self._scored(self._whole, unsettled)
        return self._whole.tuples[rows[scores.argmax()]] if len(rows) else None

    def _partly_trained(self) -> list[Genotype]:
        partial = dict.fromkeys(trial.genotype for trial in self._trials if not trial.full)
        settled = {trial.genotype for trial in self._trials if trial.full} | self._failed
        return [g for g in partial if g not in settled and g not in self._pending]

    def _evolved(self, unsettled: Candidates) -> Genotype | None:
        """Let candidates evolve towards larger gains, from the front and random architectures."""
        space, settings = self._problem.space, self._settings
        count = settings.candidates // (settings.generations + 1)
        front = space.matrix(self._outlook.front())
        scores: dict[Genotype, float] = {}
        parents, drawn = front, space.samples(count, self._rng)
        for _ in range(settings.generations):
            children = offspring(space, parents, count, self._rng)
            distinct = np.unique(np.vstack([drawn, children]), axis=0).tolist()
            fresh = [genotype for genotype in map(tuple, distinct) if genotype not in scores]
            candidates = self._candidates(fresh)
            rows, gains = self._scored(candidates, unsettled)
            scores |= {candidates.tuples[row]: gain for row, gain in zip(rows, gains, strict=True)}
            best = sorted(scores, key=scores.__getitem__, reverse=True)[: count // 4]
            parents, drawn = np.vstack([front, space.matrix(best)]), drawn[:0]
        return max(scores, key=scores.__getitem__, default=None)

    def _scored(self, candidates: Candidates, unsettled: Candidates) -> tuple[IntArray, FloatArray]:
        """Return the rows of those that are new and feasible, and their scores."""
        rows = np.flatnonzero(candidates.feasible & candidates.unseen(self._seen))
        if len(rows) == 0:
            return rows, np.empty(0)
        return rows, self._outlook.scores(candidates, unsettled)[rows]
