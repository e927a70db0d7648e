"""The acquisition function: expected feasible hypervolume improvement, given all trials so far."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.blocks import IntArray
from nas.search.problem import SearchProblem
from nas.search.ranking import constrained_ranks
from nas.search.surrogates.expected_improvement import LEAST, log_expected_improvement
from nas.search.surrogates.features import Features, Group
from nas.search.surrogates.scores import ScoredFeatures
from nas.search.surrogates.surrogate import Surrogate

SURELY = 0.5
"""Standard deviations by which a promising candidate is predicted to be better than the worst: what
learns nothing is predicted to be hardly better, whatever its latency."""

NEAR_ZERO = 1e-2
"""Of the least known value in a sample of the space: the least of which a logarithm is taken."""

LIKELY = 0.25
"""Least probability of keeping learned limits: large gains at long odds rest on a model's tails."""


class Candidates:
    """Architectures among which a search chooses, with what is known of them before training.

    Attributes:
        genotypes: Canonical, shape `(n, g)`.
    """

    def __init__(
        self, problem: SearchProblem, features: Features | ScoredFeatures, genotypes: IntArray
    ) -> None:
        """Describe canonical `genotypes`, shape `(n, g)`."""
        self._problem = problem
        self._features = features
        self.genotypes = genotypes

    def __len__(self) -> int:
        return len(self.genotypes)

    @cached_property
    def tuples(self) -> list[Genotype]:
        """The genotypes as the rest of a search has them."""
        return [tuple(row) for row in self.genotypes.tolist()]

    @cached_property
    def features(self) -> FloatArray:
        """See `Features`, shape `(n, p)`."""
        return self._features(self.genotypes)

    @cached_property
    def known(self) -> Mapping[str, FloatArray]:
        """Objectives and limited values that are known before training, each of shape `(n,)`."""
        return self._problem.known_columns(self.tuples)

    @cached_property
    def feasible(self) -> npt.NDArray[np.bool_]:
        """Whether no limit is known to be broken, shape `(n,)`."""
        return self._problem.feasible_rows(self.tuples)

    def refresh(self) -> None:
        """Ask anew for what is known if that has changed: a latency predictor may learn."""
        now = self._problem.known_columns(self.tuples[:1])
        # Many rows at once may be rounded otherwise than a single one.
        if not all(math.isclose(now[name][0], values[0]) for name, values in self.known.items()):
            del self.known
            self.__dict__.pop("feasible", None)

    def eligible(self, seen: Collection[Genotype]) -> IntArray:
        """Return the rows of those that are feasible and not among `seen`."""
        new = np.array([genotype not in seen for genotype in self.tuples], bool)
        return np.flatnonzero(self.feasible & new)


class Acquisition:
    """Learns what only evaluations tell, and judges candidates by the hypervolume they may add.

    Objectives enter the hypervolume as logarithms where they are positive. Its reference point
    follows the data: of a known objective the largest value of any candidate, of a learned one the
    largest observed that is no outlier. A candidate is promising if its learned objectives are
    predicted to be better than the reference point. Any other counts as being no cheaper than the
    cheapest promising one, since the smallest networks of a space may learn nothing.
    """

    def __init__(self, problem: SearchProblem, groups: tuple[Group, ...], base: Candidates) -> None:
        """Prepare to learn.

        Args:
            problem: What is searched for.
            groups: Of the candidates' features.
            base: Candidates that stand for the whole space.
        """
        self._problem = problem
        self._base = base
        self._quantities = {**problem.limited, **problem.objectives}
        self._known = [n for n in problem.objectives if n in base.known]
        self._learned = [n for n in problem.objectives if n not in base.known]
        late = [n for n in problem.limited if n not in base.known and n not in self._learned]
        self._surrogates = {n: Surrogate(groups) for n in [*self._learned, *late]}
        least = {name: float(base.known[name].min()) for name in self._known}
        self._floors = {name: NEAR_ZERO * low for name, low in least.items() if low > 0}

    def learn(self, trials: Sequence[Trial], features: FloatArray, unsettled: Candidates) -> None:
        """Take in all trials so far.

        Args:
            trials: Complete ones, in the order in which they were told.
            features: Of their architectures, shape `(n, p)`.
            unsettled: Architectures under evaluation, or trained in part, which are taken to turn
                out as predicted.
        """
        self._base.refresh()
        fidelity = np.array([trial.fidelity for trial in trials])
        for name, surrogate in self._surrogates.items():
            values = np.array([self._value(trial, name) for trial in trials])
            surrogate.learn(features, fidelity, values, unsettled.features)
        full = [trial for trial in trials if trial.full]
        columns = {n: np.array([self._value(t, n) for t in full]) for n in self._problem.objectives}
        learned = [self._surrogates[name].scale(columns[name]) for name in self._learned]
        observed = np.column_stack([*learned, *self._known_axes(columns)])
        excess = [max(self._problem.violations(trial), default=0.0) for trial in full]
        kept = np.array(excess) <= 0
        self._none_kept = not kept.any()
        self._set_frame(observed)
        ranks = constrained_ranks(observed, np.maximum(excess, 0.0))
        # Where nothing is fully trained yet, all make the front.
        self.front = [t.genotype for t, r in zip(full, ranks, strict=True) if r == 0] or [
            trial.genotype for trial in trials
        ]
        points = [observed[kept]]
        if len(unsettled):
            points.append(self._worth(*self._expected(unsettled)))
        self._points = np.vstack(points)

    def scores(self, candidates: Candidates) -> FloatArray:
        """Return the logarithm of the expected feasible hypervolume improvement, shape `(n,)`.

        Where limits are learned, it is weighed by the probability that they are kept (Gardner et
        al., "Bayesian optimization with inequality constraints", ICML 2014); as long as no trial
        keeps them, that probability alone counts.
        """
        mean, std = self._at_base if candidates is self._base else self._expected(candidates)
        scores = log_expected_improvement(
            self._points, self._reference, self._worth(mean, std), std
        )
        feasibility = self._log_feasibility(candidates)
        if feasibility.any() and self._none_kept:
            return feasibility
        unlikely = feasibility < np.log(LIKELY)
        return np.where(unlikely, 3 * LEAST, scores) + feasibility

    def _value(self, trial: Trial, name: str) -> float:
        """Return a quantity of a complete trial; as measured, where it was."""
        objective = self._quantities[name]
        measured = objective.measured_column
        if measured is not None and measured in trial.facts:
            return trial.facts[measured]
        return trial.values[name] if name in trial.values else trial.facts[objective.column]

    def _set_frame(self, observed: FloatArray) -> None:
        """Set the reference point, and the known objectives of the cheapest promising points."""
        learned = len(self._learned)
        scales = [self._surrogates[name].scale for name in self._learned]
        worst = [float(scale(scale.ceiling)) for scale in scales]
        base, std = self._at_base = self._expected(self._base)
        highest = np.vstack([base, observed])[:, learned:].max(axis=0)
        self._reference = np.concatenate([worst, highest])
        useful = [
            points[self._promising(points, s)] for points, s in ((observed, 0.0), (base, std))
        ]
        least = np.vstack(useful)[:, learned:]
        self._low = least.min(axis=0) if len(least) else np.full(least.shape[1], -np.inf)

    def _promising(self, mean: FloatArray, std: FloatArray | float) -> npt.NDArray[np.bool_]:
        """Return which points are promising, shape `(n,)`."""
        better = mean + SURELY * std < self._reference
        return np.asarray(better[:, : len(self._learned)].all(axis=1))

    def _worth(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """Return means in which points that are not promising cost at least `self._low`."""
        worth, learned = mean.copy(), len(self._learned)
        poor = ~self._promising(mean, std)
        worth[poor, learned:] = np.maximum(worth[poor, learned:], self._low)
        return worth

    def _known_axes(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [
            np.log(np.maximum(columns[name], self._floors[name]))
            if name in self._floors
            else columns[name]
            for name in self._known
        ]

    def _expected(self, candidates: Candidates) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation on the hypervolume's axes, learned ones first.

        Returns:
            Shapes `(n, m)`; the deviation of what is known is 0.
        """
        predicted = [self._predicted(name, candidates) for name in self._learned]
        known = self._known_axes(candidates.known)
        none = [np.zeros(len(candidates))] * len(known)
        mean = np.column_stack([*(mean for mean, _ in predicted), *known])
        return mean, np.column_stack([*(std for _, std in predicted), *none])

    def _predicted(self, name: str, candidates: Candidates) -> tuple[FloatArray, FloatArray]:
        return self._surrogates[name].predict(candidates.features, keep=candidates is self._base)

    def _log_feasibility(self, candidates: Candidates) -> FloatArray:
        """Return the logarithm of the probability that all limits on learned quantities hold."""
        total = np.zeros(len(candidates))
        for limit in self._problem.constraints:
            if limit.objective in self._surrogates:
                mean, std = self._predicted(limit.objective, candidates)
                bound = self._surrogates[limit.objective].scale(limit.limit)
                sign = 1 if limit.relation in ("<", "<=") else -1
                total += log_ndtr(sign * (bound - mean) / std)
        return total
