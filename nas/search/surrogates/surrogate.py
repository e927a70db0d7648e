"""A model of one number that only an evaluation tells, put together from two learners.

A Gaussian process and a tree ensemble err in different ways: on NAS-Bench-201 their average ranks
the better networks more truly than either. What share the trees have is decided by stacking
(Wolpert, 1992; Breiman, 1996): it minimises the squared error of cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.search.surrogates.features import Group
from nas.search.surrogates.gaussian_process import (
    CandidatePosterior,
    Covariance,
    MultiFidelityGaussianProcess,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

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
    """Learns one number from features; takes in trials one by one, and is refitted now and then.

    Attributes:
        scale: On which it predicts.
        trees_share: Weight of the tree ensemble in the predicted mean, from 0 to 1.
        cross_validated: Root mean squared error on the scale of `gaussian_process`, `trees` and
            `stack` in cross-validation: why `trees_share` is what it is.
    """

    def __init__(self, groups: tuple[Group, ...]) -> None:
        """Begin without trials; `groups` are those of the features."""
        self._groups = groups
        self._covariance: Covariance | None = None
        self._fitted = self._taken = 0
        self.trees_share = 0.0
        self.cross_validated: dict[str, float] = {}

    def learn(self, features: FloatArray, fidelity: FloatArray, values: FloatArray) -> None:
        """Take in all trials so far.

        Args:
            features: Shape `(n, p)`, in the order in which trials were told; earlier calls had the
                first of these rows.
            fidelity: Share of the full training that each trial had, shape `(n,)`.
            values: Shape `(n,)`; finite.
        """
        inputs = np.column_stack([features, 1.0 - fidelity])
        if not self._fitted or len(values) >= REFIT_GROWTH * self._fitted:
            self._refit(inputs, values)
        elif len(values) > self._taken:
            new = slice(self._taken, len(values))
            self.process.add(inputs[new], self._standardised(values[new]))
        self._taken = len(values)

    def at(self, features: FloatArray) -> CandidatePrediction:
        """Return predictions of full trainings, features `(c, p)`, which follow later trials."""
        return CandidatePrediction(self, features)

    def _refit(self, inputs: FloatArray, values: FloatArray) -> None:
        self._fitted = len(values)
        self.scale = Scale.of(values)
        scaled = self.scale(values)
        self.centre, self.spread = float(scaled.mean()), float(scaled.std()) or 1.0
        standardised = self._standardised(values)
        chosen = representative(scaled, FIT_TRIALS)
        self._covariance = Covariance.fitted(
            self._groups, inputs[chosen], standardised[chosen], self._covariance
        )
        chosen = representative(scaled, MOST_TRIALS)
        self.process = self._process(inputs[chosen], standardised[chosen])
        self.trees = TreeEnsemble(inputs, standardised)
        self._validate(inputs[chosen], standardised[chosen])

    def _process(
        self, inputs: FloatArray, standardised: FloatArray
    ) -> MultiFidelityGaussianProcess:
        assert self._covariance is not None
        process = MultiFidelityGaussianProcess(self._covariance, inputs.shape[1])
        process.add(inputs, standardised)
        return process

    def _validate(self, inputs: FloatArray, standardised: FloatArray) -> None:
        """Cross-validate both learners and share out their weights."""
        smooth, trees = np.empty_like(standardised), np.empty_like(standardised)
        for fold in range(FOLDS):
            out = np.arange(len(standardised)) % FOLDS == fold
            process = self._process(inputs[~out], standardised[~out])
            smooth[out] = process.across(inputs[out]).T @ process.whitened
            trees[out] = TreeEnsemble(inputs[~out], standardised[~out]).predict(inputs[out])
        apart = trees - smooth
        share = (standardised - smooth) @ apart / max(float(apart @ apart), 1e-12)
        self.trees_share = float(np.clip(share, 0.0, 1.0))
        predictions = {"gaussian_process": smooth, "trees": trees}
        predictions["stack"] = smooth + self.trees_share * apart
        self.cross_validated = {
            name: self.spread * float(np.sqrt(np.mean((standardised - predicted) ** 2)))
            for name, predicted in predictions.items()
        }

    def _standardised(self, values: FloatArray) -> FloatArray:
        standardised: FloatArray = (self.scale(values) - self.centre) / self.spread
        return standardised


class CandidatePrediction:
    """What a surrogate says of fixed candidates."""

    def __init__(self, surrogate: Surrogate, features: FloatArray) -> None:
        """Predict at `features`, shape `(c, p)`; valid until the surrogate is refitted."""
        self._surrogate = surrogate
        self._process = surrogate.process
        inputs = full_training(features)
        self._posterior = CandidatePosterior(surrogate.process, inputs)
        self._trees = surrogate.trees.predict(inputs)

    @property
    def valid(self) -> bool:
        """Whether the surrogate is still the one that was asked."""
        return self._process is self._surrogate.process

    def mean_and_std(self, pending: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation on the surrogate's scale, each of shape `(c,)`.

        Args:
            pending: Features of architectures under evaluation, shape `(b, p)`, whose values are
                taken to be as predicted.
        """
        self._posterior.follow()
        share = self._surrogate.trees_share
        smooth = self._posterior.mean
        variance = np.maximum(self._posterior.variance_after(full_training(pending)), 1e-9)
        mean = smooth + share * (self._trees - smooth)
        spread = self._surrogate.spread
        return self._surrogate.centre + spread * mean, spread * np.sqrt(variance)


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
