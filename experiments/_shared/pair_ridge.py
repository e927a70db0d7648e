"""Ridge regression on pairs of genes: a surrogate of a whole space, from a published sample of it.

Every single choice and every pair of choices of two genes has a weight; a prediction is the sum of
those that a genotype has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from nas.core.prediction import FloatArray
from nas.tables import IntArray

PENALTY = 10.0
"""Of the squared weights; chosen by cross-validation among powers of ten."""

AT_ONCE = 20_000


@dataclass(frozen=True)
class PairRidge:
    """A fitted regression.

    Attributes:
        cardinalities: Number of choices of every gene.
        weights: Of every choice, then of every pair of choices, shape `(f,)`.
        mean: Added to the sum of weights.
    """

    cardinalities: tuple[int, ...]
    weights: FloatArray
    mean: float

    @classmethod
    def fit(
        cls, cardinalities: Sequence[int], genotypes: IntArray, values: Mapping[str, FloatArray]
    ) -> dict[str, PairRidge]:
        """Fit a regression to each of several values of the same genotypes, shape `(n,)`."""
        columns = _Columns(tuple(cardinalities))
        held = columns.of(genotypes)
        ones = np.zeros((len(genotypes), columns.count))
        np.put_along_axis(ones, held, 1.0, axis=1)
        targets = np.stack(list(values.values()), axis=1)
        means = targets.mean(axis=0)
        # As many weights as genotypes or fewer: the normal equations are the smaller system.
        gram = ones.T @ ones + PENALTY * np.eye(columns.count)
        weights = np.linalg.solve(gram, ones.T @ (targets - means))
        return {
            name: cls(columns.cardinalities, weights[:, i], float(means[i]))
            for i, name in enumerate(values)
        }

    def predict(self, genotypes: IntArray) -> FloatArray:
        """Return the predictions for genotypes `(n, g)`, shape `(n,)`."""
        parts = [
            self.weights[self._columns.of(genotypes[i : i + AT_ONCE])].sum(axis=1)
            for i in range(0, len(genotypes), AT_ONCE)
        ]
        return self.mean + np.concatenate([np.zeros(0), *parts])

    @cached_property
    def _columns(self) -> _Columns:
        return _Columns(self.cardinalities)


class _Columns:
    """The columns of a genotype's choices and pairs of choices."""

    def __init__(self, cardinalities: tuple[int, ...]) -> None:
        self.cardinalities = cardinalities
        sizes = np.array(cardinalities)
        genes = len(sizes)
        first, second = np.array(list(combinations(range(genes), 2))).T
        widths = np.concatenate([sizes, sizes[first] * sizes[second]])
        starts = np.concatenate([[0], np.cumsum(widths)])
        self.count = int(starts[-1])
        self._first, self._second, self._step = first, second, sizes[second]
        self._singles, self._pairs = starts[:genes], starts[genes:-1]

    def of(self, genotypes: IntArray) -> npt.NDArray[np.int64]:
        """Return the positions of the ones, shape `(n, genes + pairs)`."""
        pairs = genotypes[:, self._first] * self._step + genotypes[:, self._second]
        return np.hstack([genotypes + self._singles, pairs + self._pairs])


def cross_validated(
    cardinalities: Sequence[int],
    genotypes: IntArray,
    values: Mapping[str, FloatArray],
    folds: int = 5,
) -> dict[str, dict[str, float]]:
    """Return how well held-out values are predicted.

    Returns:
        For every value `r2`, `spearman` and `rmse`, over `folds` random parts of the genotypes.
    """
    place = np.random.default_rng(0).permutation(len(genotypes)) % folds
    predicted = {name: np.zeros(len(genotypes)) for name in values}
    for fold in range(folds):
        held = place == fold
        seen = {name: value[~held] for name, value in values.items()}
        for name, fitted in PairRidge.fit(cardinalities, genotypes[~held], seen).items():
            predicted[name][held] = fitted.predict(genotypes[held])
    scores = {}
    for name, value in values.items():
        error = predicted[name] - value
        scores[name] = {
            "r2": float(1 - error.var() / value.var()),
            "spearman": float(spearmanr(predicted[name], value).statistic),
            "rmse": float(np.sqrt((error**2).mean())),
        }
    return scores
