"""Features of an architecture for learned predictors, summed over its layers.

A network's latency is close to a sum over its layers, and a layer's latency to a sum of a call's
overhead, its arithmetic and its memory traffic. So every kind of layer gives three features: how
often it occurs, its multiply-accumulate operations, and the values that it reads and writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.space import SearchSpace


def layer_kinds(space: SearchSpace, genotypes: Sequence[Genotype]) -> list[str]:
    """Return the kinds of layers that occur in `genotypes`, sorted."""
    return sorted({layer.kind for g in genotypes for layer in space.count(g).layers})


def features(space: SearchSpace, genotypes: Sequence[Genotype], kinds: Sequence[str]) -> FloatArray:
    """Return occurrences, MACs and values moved for each kind, shape `(n, 3 * len(kinds))`.

    Layers of a kind that is not in `kinds` are left out.
    """
    column = {kind: 3 * i for i, kind in enumerate(kinds)}
    table = np.zeros((len(genotypes), 3 * len(kinds)))
    for row, genotype in zip(table, genotypes, strict=True):
        for layer in space.count(genotype).layers:
            if layer.kind in column:
                start = column[layer.kind]
                moved = layer.input_values + layer.output_values + layer.params
                row[start : start + 3] += 1, layer.macs, moved
    return table
