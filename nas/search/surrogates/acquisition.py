"""The acquisition function: expected feasible hypervolume improvement, given all trials so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.problem import SearchProblem
from nas.search.ranking import constrained_ranks
from nas.search.surrogates.candidates import Candidates
from nas.search.surrogates.expected_improvement import LEAST, log_expected_improvement
from nas.search.surrogates.surrogate import CandidatePrediction, Surrogate

FloatArray = npt.NDArray[np.float64]

LOW_QUANTILE = 0.01
"""Share of the promising candidates that may lie below the least known value that counts."""

SURELY = 0.5
"""Standard deviations by which a promising candidate is predicted to be better than the worst: what
learns nothing is predicted to be hardly better, whatever its latency."""

NEAR_ZERO = 1e-2
"""Of the least known value in a sample of the space: the least of which a logarithm is taken."""

LIKELY = 0.25
"""Least probability of keeping learned limits: large gains at long odds rest on a model's tails."""


class Acquisition:
    """Learns what only evaluations tell, and judges candidates by the hypervolume they may add.

    Objectives enter the hypervolume as logarithms where they are positive. Its reference point
    follows the data: of a known objective the largest value of any candidate, of a learned one the
    largest observed that is no outlier. A known objective counts down to the values of promising
    candidates, so that the smallest networks of a space, which learn nothing, are worth nothing.

    Attributes:
        surrogates: The model of each learned quantity, objectives first, by name.
    """

    def __init__(self, problem: SearchProblem, base: Candidates) -> None:
        """Prepare to learn.

        Args:
            problem: What is searched for.
            base: Candidates that stand for the whole space.
        """
        self._problem = problem
        self._base = base
        self._quantities = {**problem.limited, **problem.objectives}
        self._known = [n for n in problem.objectives if n in base.known]
        self._learned = [n for n in problem.objectives if n not in self._known]
        late = [n for n in problem.limited if n not in base.known and n not in self._learned]
        self.surrogates = {n: Surrogate(base.groups) for n in [*self._learned, *late]}
        least = {name: float(base.known[name].min()) for name in self._known}
        self._floors = {name: NEAR_ZERO * low for name, low in least.items() if low > 0}
        self._predictions: WeakKeyDictionary[Candidates, dict[str, CandidatePrediction]]
        self._predictions = WeakKeyDictionary()

    def learn(self, trials: Sequence[Trial], features: FloatArray) -> None:
        """Take in all complete trials so far.

        Args:
            trials: In the order in which they were told.
            features: Of their architectures, shape `(n, p)`.
        """
        self._base.refresh()
        fidelity = np.array([trial.fidelity for trial in trials])
        for name, surrogate in self.surrogates.items():
            values = np.array([self._value(trial, name) for trial in trials])
            surrogate.learn(features, fidelity, values)
        self._trials = trials
        self._full = full = [trial for trial in trials if trial.full]
        self._observed = self._points(
            {
                name: np.array([self._value(t, name) for t in full])
                for name in self._problem.objectives
            }
        )
        excess = [max(self._problem.violations(trial), default=0.0) for trial in full]
        self._excess = np.maximum(excess, 0.0)
        self._set_frame()

    def scores(self, candidates: Candidates, unsettled: Candidates) -> FloatArray:
        """Return the logarithm of the expected feasible hypervolume improvement, shape `(n,)`.

        Where limits are learned, it is weighed by the probability that they are kept (Gardner et
        al., "Bayesian optimization with inequality constraints", ICML 2014); as long as no trial
        keeps them, that probability alone counts.

        Args:
            candidates: Whom to judge.
            unsettled: Architectures under evaluation, or trained in part, which are taken to turn
                out as predicted.
        """
        expected, _ = self._expected(unsettled, None)
        front = self._clipped(np.vstack([self._observed[self._excess == 0], expected]))
        mean, std = self._expected(candidates, unsettled)
        scores = log_expected_improvement(front, self._reference, self._clipped(mean), std)
        feasibility = self._log_feasibility(candidates, unsettled)
        if feasibility.any() and (self._excess > 0).all():
            return feasibility
        unlikely = feasibility < np.log(LIKELY)
        return np.where(unlikely, 3 * LEAST, scores) + feasibility

    def front(self) -> list[Genotype]:
        """Return the architectures of the front so far; all, where none is fully trained."""
        if not self._full:
            return [trial.genotype for trial in self._trials]
        ranks = constrained_ranks(self._observed, self._excess)
        return [self._full[i].genotype for i in np.flatnonzero(ranks == 0)]

    def _value(self, trial: Trial, name: str) -> float:
        """Return a quantity of a complete trial; as measured, where it was."""
        objective = self._quantities[name]
        measured = objective.measured_column
        if measured is not None and measured in trial.facts:
            return trial.facts[measured]
        return trial.values[name] if name in trial.values else trial.facts[objective.column]

    def _models(self, names: Sequence[str]) -> list[Surrogate]:
        return [self.surrogates[name] for name in names]

    def _set_frame(self) -> None:
        """Set the reference point and the least values that count."""
        learned = len(self._learned)
        worst = [float(s.scale(s.scale.ceiling)) for s in self._models(self._learned)]
        base, std = self._expected(self._base, None)
        highest = np.vstack([base, self._observed])[:, learned:].max(axis=0)
        self._reference = np.concatenate([worst, highest])
        self._low = np.full(len(self._reference), -np.inf)
        observed, promising = (
            points[(points[:, :learned] < worst).all(axis=1), learned:]
            for points in (self._observed, base + SURELY * std)
        )
        lows = [points.min(axis=0) for points in [observed] if len(points)]
        lows += [np.quantile(points, LOW_QUANTILE, axis=0) for points in [promising] if len(points)]
        if lows:
            self._low[learned:] = np.min(lows, axis=0)

    def _points(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return objectives on the hypervolume's axes, learned ones first, shape `(n, m)`."""
        learned = [self.surrogates[name].scale(columns[name]) for name in self._learned]
        return np.column_stack([*learned, *self._known_axes(columns)])

    def _known_axes(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [
            np.log(np.maximum(columns[name], self._floors[name]))
            if name in self._floors
            else columns[name]
            for name in self._known
        ]

    def _expected(
        self, candidates: Candidates, unsettled: Candidates | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of the objectives, shapes `(n, m)`, as `_points`."""
        predicted = [self._predict(name, candidates, unsettled) for name in self._learned]
        known = self._known_axes(candidates.known)
        none = [np.zeros(len(candidates))] * len(known)
        mean = np.column_stack([*(mean for mean, _ in predicted), *known])
        return mean, np.column_stack([*(std for _, std in predicted), *none])

    def _predict(
        self, name: str, candidates: Candidates, unsettled: Candidates | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of a learned quantity on its surrogate's scale."""
        surrogate = self.surrogates[name]
        held = self._predictions.setdefault(candidates, {})
        if name not in held or not held[name].valid:
            held[name] = surrogate.at(candidates.features)
        pending = candidates.features[:0] if unsettled is None else unsettled.features
        return held[name].mean_and_std(pending)

    def _log_feasibility(self, candidates: Candidates, unsettled: Candidates) -> FloatArray:
        """Return the logarithm of the probability that all limits on learned quantities hold."""
        total = np.zeros(len(candidates))
        for limit in self._problem.constraints:
            if limit.objective in self.surrogates:
                mean, std = self._predict(limit.objective, candidates, unsettled)
                bound = self.surrogates[limit.objective].scale(limit.limit)
                sign = 1 if limit.relation in ("<", "<=") else -1
                total += log_ndtr(sign * (bound - mean) / std)
        return total

    def _clipped(self, points: FloatArray) -> FloatArray:
        clipped: FloatArray = np.maximum(points, self._low)
        return clipped
