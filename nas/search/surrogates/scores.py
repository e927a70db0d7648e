"""What zero-cost proxies would say of an architecture, as features of it.

To score every candidate of a proposal takes longer than a proposal may. So the scores of some
random architectures are learned, from the same features as errors are, and predicted for all
others. How much the predictions count is fitted to the errors, as a length scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.search.problem import Scored
from nas.search.surrogates.features import Features, Group
from nas.search.surrogates.surrogate import Surrogate


class ScoredFeatures:
    """The features of a space, and behind them the predicted ranks of proxies' scores.

    Attributes:
        groups: Of the columns.
    """

    def __init__(self, features: Features, scored: Scored) -> None:
        """Learn the rank of every score among the others; ranks are robust to outliers."""
        self._features = features
        inputs = features(scored.genotypes)
        n, number = scored.scores.shape
        ranks = rankdata(scored.scores, axis=0) / n - 0.5
        self._models = [Surrogate(features.groups) for _ in range(number)]
        for model, column in zip(self._models, ranks.T, strict=True):
            model.learn(inputs, np.ones(n), column, inputs[:0])
        start = inputs.shape[1]
        own = Group("scores", slice(start, start + number))
        self.groups: tuple[Group, ...] = (*features.groups, own)
        # The deviation of uniform ranks, times the root of the group's size as in `Features`.
        self._scale = np.sqrt(number / 12)

    def __call__(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        """Return the features, shape `(n, p)`."""
        inputs = self._features(genotypes)
        if not len(inputs):
            return np.zeros((0, self.groups[-1].columns.stop))
        predicted = [model.predict(inputs)[0] for model in self._models]
        return np.column_stack([inputs, np.stack(predicted, axis=1) / self._scale])
