"""Extremely randomised trees (Geurts, Ernst and Wehenkel, 2006)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TREES = 60

SHARE_OF_FEATURES = 0.5
"""Of the features, drawn anew at every split."""


class TreeEnsemble:
    """Trees that were fitted to observations."""

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
