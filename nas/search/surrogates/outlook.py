"""What candidates promise, given all trials so far: the models of a search problem together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.problem import SearchProblem
from nas.search.surrogates.acquisition import log_expected_improvement
from nas.search.surrogates.candidates import Candidates
from nas.search.surrogates.surrogate import Prediction, Surrogate

FloatArray = npt.NDArray[np.float64]

LOW_QUANTILE = 0.01
"""Share of the promising candidates that may lie below the least known value that counts."""

NEAR_ZERO = 1e-2
"""Of the least known value in a sample of the space: the least of which a logarithm is taken."""


class Outlook:
    """Learns what only evaluations tell, and judges candidates by the hypervolume they may add.

    Objectives enter the hypervolume as logarithms where they are positive. Its reference point
    follows the data: of a known objective the largest value of any candidate, of a learned one the
    largest observed that is no outlier. A known objective counts down to the values of promising
    candidates, so that the smallest networks of a space, which learn nothing, are worth nothing.

    Attributes:
        surrogates: The model of each learned quantity, objectives first, by name.
    """

    def __init__(self, problem: SearchProblem, base: Candidates, *, use_known: bool) -> None:
        """Prepare to learn.

        Args:
            problem: What is searched for.
            base: Candidates that stand for the whole space.
            use_known: Whether objectives that are known before training are taken as known.
        """
        self._problem = problem
        self._base = base
        self._quantities = {**problem.limited, **problem.objectives}
        self._known = [n for n in problem.objectives if use_known and n in base.known]
        self._learned = [n for n in problem.objectives if n not in self._known]
        late = [n for n in problem.limited if n not in base.known and n not in self._learned]
        self.surrogates = {n: Surrogate(base.groups) for n in [*self._learned, *late]}
        least = {name: float(base.known[name].min()) for name in self._known}
        self._floors = {name: NEAR_ZERO * low for name, low in least.items() if low > 0}
        self._predictions: WeakKeyDictionary[Candidates, dict[str, Prediction]]
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
        self._feasible = np.array(
            [max(self._problem.violations(t), default=0.0) <= 0 for t in full], bool
        )
        self._set_frame()

    def scores(self, candidates: Candidates, unsettled: Candidates) -> FloatArray:
        """Return the logarithm of the expected hypervolume improvement, shape `(n,)`.

        Args:
            candidates: Whom to judge.
            unsettled: Architectures under evaluation, or trained in part, which are taken to turn
                out as predicted.
        """
        expected, _ = self._expected(unsettled, None)
        front = self._clipped(np.vstack([self._observed[self._feasible], expected]))
        mean, std = self._expected(candidates, unsettled)
        scores = log_expected_improvement(front, self._reference, self._clipped(mean), std)
        return scores + self._log_feasibility(candidates, unsettled)

    def front(self) -> list[Genotype]:
        """Return the architectures of the front so far; all, where none is fully trained."""
        points = self._observed[self._feasible]
        worse = (points[:, None] >= points).all(axis=2) & (points[:, None] > points).any(axis=2)
        best = [self._full[i] for i in np.flatnonzero(self._feasible)[~worse.any(axis=1)]]
        return [trial.genotype for trial in best or self._trials]

    def _value(self, trial: Trial, name: str) -> float:
        """Return a quantity of a complete trial; as measured, where it was."""
        objective = self._quantities[name]
        if objective.measured_column in trial.facts:
            return trial.facts[objective.measured_column]
        return trial.values[name] if name in trial.values else trial.facts[objective.column]

    def _models(self, names: Sequence[str]) -> list[Surrogate]:
        return [self.surrogates[name] for name in names]

    def _set_frame(self) -> None:
        """Set the reference point and the least values that count."""
        learned = len(self._learned)
        worst = [float(s.scale(s.scale.ceiling)) for s in self._models(self._learned)]
        base, _ = self._expected(self._base, None)
        highest = np.vstack([base, self._observed])[:, learned:].max(axis=0)
        self._reference = np.concatenate([worst, highest])
        self._low = np.full(len(self._reference), -np.inf)
        observed, promising = (
            points[(points[:, :learned] < worst).all(axis=1), learned:]
            for points in (self._observed, base)
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
        return np.maximum(points, self._low)
