"""The latency of a new device from few measurements and the predictors of other devices.

For what it learns see `latency_predictors.calibration.few_shot`; the networks that it measures are
chosen from what the other devices say, before the new one runs anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import search_spaces
from latency_predictors import PredictorSettings, load, register
from latency_predictors.calibration.base import Regression, read_saved
from latency_predictors.calibration.few_shot import Columns, FewShotModel, Matrix, design
from latency_predictors.calibration.sampling import too_many
from nas.core.errors import ConfigError, HwnasError, one_line
from nas.core.prediction import FloatArray, LatencyPredictor
from nas.core.records import read_json
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

POPULATION = 1000
"""Random architectures on which the columns are scaled."""

POOL = 900
"""Random architectures of which the samples are taken."""

SMALLEST = 0.1
"""Predictions are at least this share of the smallest latency that was measured."""

SOURCES = "sources"
"""Folder of a saved predictor in which its sources are."""


@dataclass(frozen=True)
class Sources:
    """Predictors of other devices on one space."""

    space: SearchSpace
    predictors: tuple[LatencyPredictor, ...]

    @classmethod
    def read(cls, space: SearchSpace, folders: Sequence[Path]) -> Sources:
        """Load predictors from their folders.

        Raises:
            ConfigError: A folder holds no predictor, or one of another space.
        """
        return cls(space, tuple(_source(space, folder) for folder in folders))

    def describe(self, genotypes: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what `Columns` is made of: latencies, counts of choices, single choices."""
        one_hot = self.space.one_hot(genotypes)
        devices_ms = [predictor.predict(genotypes).mean_ms for predictor in self.predictors]
        return np.stack(devices_ms, 1), one_hot @ self._alike, one_hot

    @property
    def columns(self) -> Columns:
        """The columns, scaled on random architectures that are always the same."""
        population = self.space.samples(POPULATION, np.random.default_rng(0))
        return Columns.of(*self.describe(population))

    @property
    def _alike(self) -> FloatArray:
        """Return which single choices are counted together, shape `(choices, counts)`.

        Equal ones of genes that have the same choices.
        """
        keys = [(gene.choices, value) for gene in self.space.genes for value in gene.choices]
        numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return np.eye(len(numbers))[[numbers[key] for key in keys]]


def _source(space: SearchSpace, folder: Path) -> LatencyPredictor:
    """Load one predictor and check that it is of `space`; see `Sources.read`."""
    try:
        predictor = load(folder)
        record = read_json(folder / "predictor.json")
        theirs = search_spaces.registry.settings(search_spaces.get(**record["space"]))
    except HwnasError as error:
        expected = "a folder with a saved predictor"
        raise ConfigError(
            "latency_predictor.sources", str(folder), expected, one_line(error)
        ) from error
    ours = search_spaces.registry.settings(space)
    differing = [name for name in ours if ours[name] != theirs.get(name)]
    if differing:
        got = f"{folder}, where " + _listed(theirs, differing)
        expected = "a predictor of the space on which is searched, where " + _listed(
            ours, differing
        )
        fix = "latencies of other networks do not carry over: calibrate the source on this space"
        raise ConfigError("latency_predictor.sources", got, expected, fix)
    return predictor


def _listed(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} is {settings.get(name)}" for name in names)


class Transfer(Regression):
    """A predictor of a new device that was fitted to samples."""

    name = "transfer"

    def __init__(
        self,
        sources: Sources,
        genotypes: Sequence[Genotype] | IntArray,
        latency_ms: FloatArray,
    ) -> None:
        """Fit to samples, given predictors of other devices; see `Regression`."""
        self._sources = sources
        self._columns = sources.columns
        self._smallest_ms = SMALLEST * float(np.min(latency_ms))
        super().__init__(sources.space, genotypes, latency_ms)

    def features(self, genotypes: IntArray) -> Matrix:
        """Return the columns of `latency_predictors.calibration.few_shot`."""
        return self._columns(*self._sources.describe(genotypes))

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        self._model = FewShotModel.fit(self._columns, features, latency_ms)

    def evaluate(self, features: FloatArray) -> FloatArray:
        mean_ms, std_ms = self._model(features).T
        return np.stack([np.maximum(mean_ms, self._smallest_ms), std_ms], 1)

    def save(self, path: Path) -> None:
        super().save(path)
        for i, predictor in enumerate(self._sources.predictors):
            predictor.save(path / SOURCES / str(i))


@register("transfer")
@dataclass(frozen=True, kw_only=True)
class TransferSettings(PredictorSettings):
    """Settings of the transfer.

    Attributes:
        sources: Folders with saved predictors of other devices on the same space.
    """

    samples: int = 10
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            expected = "one folder or more with a saved predictor of another device"
            raise ConfigError("latency_predictor.sources", list(self.sources), expected)

    def first_samples(self, space: SearchSpace, seed: int) -> list[Genotype]:
        sources = self._read(space)
        drawn = space.samples(max(POOL, 2 * self.samples), np.random.default_rng(seed))
        pool = list(dict.fromkeys(tuple(row) for row in space.matrix(drawn).tolist()))
        if len(pool) < self.samples:
            raise too_many(self.samples, len(pool))
        columns = sources.columns
        rows = columns(*sources.describe(space.matrix(pool)))
        return [pool[i] for i in design(columns, rows, self.samples)]

    def fit(
        self, space: SearchSpace, genotypes: Sequence[Genotype], latency_ms: FloatArray
    ) -> LatencyPredictor:
        return Transfer(self._read(space), genotypes, latency_ms)

    @classmethod
    def load(cls, path: Path) -> LatencyPredictor:
        space, arrays = read_saved(path)
        folders = sorted((path / SOURCES).iterdir(), key=lambda folder: int(folder.name))
        sources = Sources.read(space, folders)
        return Transfer(sources, arrays["genotypes"], arrays["measured"])

    def _read(self, space: SearchSpace) -> Sources:
        return Sources.read(space, [Path(folder) for folder in self.sources])
