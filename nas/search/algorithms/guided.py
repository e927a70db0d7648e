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

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from nas.core.errors import ConfigError
from nas.core.objective import Constraint
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.problem import SearchProblem
from nas.search.surrogates.acquisition import expected_improvement
from nas.search.surrogates.candidates import Candidates, enumerate_space, offspring
from nas.search.surrogates.features import Features
from nas.search.surrogates.surrogate import Prediction, Surrogate

FloatArray = npt.NDArray[np.float64]

LEAST_TRIALS = 5
"""Complete trials from which models learn; until then architectures are drawn at random."""


@register("guided")
@dataclass(frozen=True, kw_only=True)
class GuidedSettings(AlgorithmSettings):
    """Settings of guided search.

    Attributes:
        initial: Architectures that are proposed before models choose.
        candidates: Architectures among which is chosen, where the space is larger.
        generations: In which these evolve, for each proposal.
        enumerable: Up to so many genotypes, all of them are candidates.
        known_objectives: Whether what is known before training is taken as known. If not, every
            objective is learned from trials, as general optimisers must: for comparisons.
    """

    initial: int = 20
    candidates: int = 1000
    generations: int = 4
    enumerable: int = 50_000
    known_objectives: bool = True

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

    def __init__(self, problem: SearchProblem, seed: int, settings: GuidedSettings) -> None:
        """Search `problem` with the random stream of `seed`."""
        self._problem = problem
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._features = Features(problem.space)
        every = enumerate_space(problem.space, settings.enumerable)
        self._whole = None if every is None else self._candidates(every)
        self._plan: list[Genotype] | None = None
        self._proposed: set[Genotype] = set()
        self._pending: dict[Genotype, None] = {}
        self._seen: set[Genotype] = set()
        self._trials: list[Trial] = []
        self._models: dict[str, Surrogate] = {}
        self._told_features: list[FloatArray] = []
        self._predictions: dict[str, Prediction] = {}

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
                self._told_features.append(self._features([trial.genotype])[0])

    def _candidates(self, genotypes: npt.NDArray[np.int64]) -> Candidates:
        return Candidates(self._problem, self._features, genotypes)

    def _next(self) -> Genotype | None:
        if self._plan is None:
            self._plan = self._start()
        while self._plan:
            genotype = self._plan.pop()
            if genotype not in self._seen:
                return genotype
        chosen = self._chosen() if len(self._trials) >= LEAST_TRIALS else None
        return chosen or self._problem.sample_feasible(self._rng, self._seen)

    def _start(self) -> list[Genotype]:
        """Return feasible architectures, drawn from strata of equal width of what is known."""
        pool = self._whole
        if pool is None:
            pool = self._candidates(
                np.unique(self._problem.space.samples(self._settings.candidates, self._rng), axis=0)
            )
        rows = np.flatnonzero(pool.feasible)
        if len(rows) < self._settings.initial:
            return []
        rows = self._rng.permutation(rows)
        known = [pool.known[name][rows] for name in self._problem.objectives if name in pool.known]
        if known:
            rows = rows[np.argsort(known[0], kind="stable")]
        strata = np.array_split(rows, self._settings.initial)
        plan = [pool.tuples[self._rng.choice(stratum)] for stratum in strata]
        return [plan[i] for i in self._rng.permutation(len(plan))]

    def _chosen(self) -> Genotype | None:
        self._learn()
        pool = self._whole
        rows = np.flatnonzero(pool.feasible & pool.unseen(self._seen))
        if len(rows) == 0:
            return None
        gains = self._gains(pool)
        return pool.tuples[rows[np.argmax(gains[rows])]]

    def _learn(self) -> None:
        features = np.array(self._told_features)
        values = np.array([t.values["error"] for t in self._trials])
        if "error" not in self._models:
            self._models["error"] = Surrogate(self._features.groups)
        self._models["error"].learn(features, values)

    def _gains(self, pool):
        m = self._models["error"]
        p = self._predictions.get("error")
        if p is None or not p.valid:
            p = self._predictions["error"] = m.at(pool.features)
        pend = self._features(list(self._pending)) if self._pending else np.empty((0, pool.features.shape[1]))
        mu, sd = p.mean_and_std(pend)
        names = [n for n in self._problem.objectives if n != "error"]
        known = np.stack([np.log(pool.known[n]) for n in names], 1)
        ref_y = m.scale(m.scale.ceiling)
        good = mu < ref_y
        low = np.quantile(known[good], 0.01, axis=0)
        ref = np.concatenate([[ref_y], known.max(0)])
        known = np.maximum(known, low)
        front = np.array([[m.scale(t.values["error"]), *[max(np.log(t.values[n]), l) for n, l in zip(names, low)]] for t in self._trials])
        if self._pending:
            rows=[self._row(pool)[g] for g in self._pending]
            front = np.vstack([front, np.column_stack([mu[rows], known[rows]])])
        mean = np.column_stack([mu, known]); std = np.zeros_like(mean); std[:,0]=sd
        return expected_improvement(front, ref, mean, std)

    def _row(self, pool):
        if not hasattr(self, "_rows"):
            self._rows = {g: i for i, g in enumerate(pool.tuples)}
        return self._rows
