"""A model of one number that only an evaluation tells, put together from two learners.

A Gaussian process and a tree ensemble err in different ways: on NAS-Bench-201 their average ranks
the better networks more truly than either. What share the trees have is decided by stacking
(Wolpert, 1992; Breiman, 1996): it minimises the squared error of cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.core.prediction import FloatArray
from nas.network.blocks import IntArray
from nas.search.surrogates.features import Group
from nas.search.surrogates.gaussian_process import Covariance, GaussianProcess

FOLDS = 4

TREES = 40

SHARE_OF_FEATURES = 0.5
"""Of the features, drawn anew at every split of a tree."""

REFIT_GROWTH = 1.1
"""Parameters, trees and their shares are fitted anew when there are so many times the trials."""

MOST_TRIALS = 1000
"""Trials that the Gaussian process takes in; more are thinned at a refit."""

FIT_TRIALS = 400
"""Trials from which its parameters are fitted."""

FAR_OUT = 3.0
"""Quartile ranges beyond the upper quartile from which a value is an outlier (Tukey, 1977)."""

SHIFT = 0.1
"""Of the median: what is added before a logarithm is taken, so that 0 is not infinitely good."""


@dataclass(frozen=True)
class Scale:
    """How an observed number enters the models.

    Numbers that are not negative enter as logarithms, after a small shift. Those far above the
    others (a network that learned nothing) are all equal to a model, which else would explain
    nothing but them.

    Attributes:
        shift: Added before the logarithm is taken; `None` where none is taken.
        ceiling: Largest number told apart.
    """

    shift: float | None
    ceiling: float

    @classmethod
    def of(cls, values: FloatArray) -> Scale:
        """Return the scale for numbers of which `values` are typical, shape `(n,)`."""
        median = float(np.median(values))
        unclipped = cls(SHIFT * median if values.min() >= 0 and median > 0 else None, np.inf)
        scaled = unclipped(values)
        lower, upper = np.quantile(scaled, [0.25, 0.75])
        return cls(
            unclipped.shift, float(values[scaled <= upper + FAR_OUT * (upper - lower)].max())
        )

    def __call__(self, values: FloatArray | float) -> FloatArray:
        """Return numbers on the scale."""
        clipped = np.minimum(values, self.ceiling)
        if self.shift is None:
            return np.asarray(clipped)
        # A later number, or a limit, may be negative after all.
        return np.asarray(np.log(np.maximum(clipped, 0.0) + self.shift))


class TreeEnsemble:
    """Extremely randomised trees (Geurts, Ernst and Wehenkel, 2006), fitted to observations."""

    def __init__(self, features: FloatArray, values: FloatArray) -> None:
        """Fit to observations, shapes `(n, p)` and `(n,)`; equal ones give equal trees."""
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(TREES, max_features=SHARE_OF_FEATURES, random_state=0)
        self._trees = [tree.tree_ for tree in forest.fit(features, values).estimators_]

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Return the mean over trees, shape `(n,)`."""
        single = inputs.astype(np.float32)
        mean: FloatArray = np.mean([tree.predict(single)[:, 0] for tree in self._trees], axis=0)
        return mean


class Surrogate:
    """Learns one number from features; its parameters are refitted now and then.

    Attributes:
        scale: On which it predicts.
        trees_share: Weight of the tree ensemble in the predicted mean, from 0 to 1.
    """

    def __init__(self, groups: tuple[Group, ...]) -> None:
        """Begin without trials; `groups` are those of the features."""
        self._covariance = Covariance.typical(groups)
        self._fitted = 0
        self._kept: _KeptPrediction | None = None
        self.trees_share = 0.0

    def learn(
        self, features: FloatArray, fidelity: FloatArray, values: FloatArray, pending: FloatArray
    ) -> None:
        """Take in all trials so far.

        Args:
            features: Shape `(n, p)`, in the order in which trials were told; earlier calls had the
                first of these rows.
            fidelity: Share of the full training that each trial had, shape `(n,)`.
            values: Shape `(n,)`; finite.
            pending: Features of architectures under evaluation, shape `(b, p)`, whose values are
                taken to be as predicted.
        """
        inputs = np.column_stack([features, 1.0 - fidelity])
        if len(values) >= REFIT_GROWTH * self._fitted:
            self._refit(inputs, values)
        taken = np.concatenate([self._chosen, np.arange(self._fitted, len(values))])
        self._process = GaussianProcess(
            self._covariance,
            inputs[taken],
            self._standardised(values[taken]),
            full_training(pending),
        )
        self._observations = len(taken)

    def predict(self, features: FloatArray, *, keep: bool = False) -> tuple[FloatArray, FloatArray]:
        """Predict full trainings.

        Args:
            features: Of candidates, shape `(c, p)`.
            keep: Whether to keep what the next call with the same candidates can use.

        Returns:
            Mean and standard deviation on the surrogate's scale, each of shape `(c,)`.
        """
        inputs = full_training(features)
        kept = self._kept if keep else None
        rows = self._process.rows(inputs, None if kept is None else kept.rows)
        trees = self._trees.predict(inputs) if kept is None else kept.trees
        if keep:
            self._kept = _KeptPrediction(rows[: self._observations], trees)
        smooth, variance = self._process.predict(inputs, rows)
        mean = smooth + self.trees_share * (trees - smooth)
        std = np.sqrt(np.maximum(variance, 1e-9))
        return self._centre + self._spread * mean, self._spread * std

    def _refit(self, inputs: FloatArray, values: FloatArray) -> None:
        self._fitted, self._kept = len(values), None
        self.scale = Scale.of(values)
        scaled = self.scale(values)
        self._centre, self._spread = float(scaled.mean()), float(scaled.std()) or 1.0
        standardised = self._standardised(values)
        chosen = representative(scaled, FIT_TRIALS)
        self._covariance = self._covariance.fitted(inputs[chosen], standardised[chosen])
        self._trees = TreeEnsemble(inputs, standardised)
        self._chosen = representative(scaled, MOST_TRIALS)
        self._cross_validate(inputs[self._chosen], standardised[self._chosen])

    def _cross_validate(self, inputs: FloatArray, standardised: FloatArray) -> None:
        """Cross-validate both learners and share out their weights."""
        smooth, trees = np.empty_like(standardised), np.empty_like(standardised)
        for fold in range(FOLDS):
            out = np.arange(len(standardised)) % FOLDS == fold
            rest, values = inputs[~out], standardised[~out]
            smooth[out] = GaussianProcess(self._covariance, rest, values).predict(inputs[out])[0]
            trees[out] = TreeEnsemble(rest, values).predict(inputs[out])
        self.trees_share = stacked_share(standardised, smooth, trees)

    def _standardised(self, values: FloatArray) -> FloatArray:
        standardised: FloatArray = (self.scale(values) - self._centre) / self._spread
        return standardised


@dataclass(frozen=True)
class _KeptPrediction:
    """What further trials do not change of a prediction."""

    rows: FloatArray
    trees: FloatArray


def stacked_share(values: FloatArray, first: FloatArray, second: FloatArray) -> float:
    """Return the weight of the second of two predictions at which their mean errs least.

    Args:
        values: That were to be predicted, shape `(n,)`.
        first: Prediction of them; its weight is the rest.
        second: The other prediction.

    Returns:
        The least squares solution, between 0 and 1.
    """
    apart = second - first
    share = (values - first) @ apart / max(float(apart @ apart), 1e-12)
    return float(np.clip(share, 0.0, 1.0))


def full_training(features: FloatArray) -> FloatArray:
    """Return the inputs of the models for full trainings, which lack nothing, `(n, p + 1)`."""
    return np.column_stack([features, np.zeros(len(features))])


def representative(values: FloatArray, most: int) -> IntArray:
    """Return the positions of at most `most` trials: half the best, half spread over the rest."""
    if len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    rest = order[most // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(int)]
    return np.sort(np.concatenate([order[: most // 2], spread]))
