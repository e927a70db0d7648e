"""What a network takes of a microcontroller's memories, learned from the estimates of tools.

The arena of TensorFlow Lite Micro has two parts that follow other laws, as peak memory has. Its
head holds the activations that are alive at once, which is counted on the network. Its tail, and
the file in flash, grow with every kernel. What Arm's compiler Vela takes is counted by other rules,
activations in place and nothing padded, and some weights are copied to this memory as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency_predictors import AGAIN
from latency_predictors.additive import PartsPredictor
from latency_predictors.calibration.base import read_saved
from latency_predictors.calibration.parts import kernels
from latency_predictors.regression import EncodingRegression
from nas.core.host import one_thread
from nas.core.prediction import FloatArray, MemoryPredictor
from nas.core.records import decoding
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

COUNTS = 2
"""Ways of counting activations: of TensorFlow Lite Micro, and of runtimes that work in place."""

HEAD, TAIL = "head", "tail"
"""Folders of the parts of a saved predictor of memory."""


class ArenaRegression(EncodingRegression):
    """The activations that are counted alive at once, by a factor that is learned.

    Of the two ways of counting that one is taken whose factor varies least.
    """

    name = "arena"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return logarithms of both counts and of sizes, and the one-hot encoding: `(n, f)`."""
        costs = self.space.costs(genotypes)
        sizes = costs[["peak_activation_mb", "activations_m", "macs_m", "params_m"]]
        every: FloatArray = np.hstack(
            [self.space.arena_kb(genotypes)[:, None], sizes.to_numpy(float)]
        )
        return np.hstack([np.log(np.maximum(every, 1e-9)), self.space.one_hot(genotypes)])

    def fit(self, features: FloatArray, latency_ms: FloatArray) -> None:
        factors = np.log(latency_ms)[:, None] - features[:, :COUNTS]
        self._count = int(np.argmin(factors.std(axis=0)))
        super().fit(features, np.exp(factors[:, self._count]))

    def evaluate(self, features: FloatArray) -> FloatArray:
        counted: FloatArray = np.exp(features[:, [self._count]])
        return super().evaluate(features) * counted


@dataclass(frozen=True)
class Sram(MemoryPredictor):
    """Predicts the memory that a network takes.

    Attributes:
        head: Of what networks share, in megabytes.
        tail: Of what each keeps; `None` where the tool tells none.
    """

    head: ArenaRegression
    tail: PartsPredictor | None

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        genotypes: Sequence[Genotype],
        sram_mb: FloatArray,
        tail_mb: FloatArray,
    ) -> Sram:
        """Learn from estimates of networks, both of shape `(n,)`; a tail of 0 is none."""
        head = ArenaRegression(space, genotypes, sram_mb - tail_mb)
        return cls(head, _additive(space, genotypes, tail_mb) if tail_mb.all() else None)

    @one_thread()
    def predict_mb(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        rows = self.head.space.matrix(genotypes)
        head_mb: FloatArray = self.head.estimate(rows)[:, 0]
        return head_mb if self.tail is None else head_mb + self.tail.estimate(rows)[:, 0]

    def held_out_errors(self) -> FloatArray:
        predicted_mb, sram_mb = self.head.held_out[:, 0], self.head.measured
        if self.tail is not None:
            predicted_mb = predicted_mb + self.tail.held_out[:, 0]
            sram_mb = sram_mb + self.tail.measured
        errors: FloatArray = predicted_mb / sram_mb - 1
        return errors

    def save(self, path: Path) -> None:
        self.head.save(path / HEAD)
        if self.tail is not None:
            self.tail.save(path / TAIL)

    @classmethod
    def load(cls, path: Path) -> Sram:
        """Read what `save` wrote.

        Raises:
            ConfigError: The code of the space was another.
        """
        with decoding(path / HEAD / "predictor.npz", AGAIN):
            space, samples = read_saved(path / HEAD)
            head = ArenaRegression(space, samples["genotypes"], samples["measured"])
        return cls(head, _loaded(path / TAIL) if (path / TAIL).is_dir() else None)


@dataclass(frozen=True)
class Flash(MemoryPredictor):
    """Predicts the flash that a network takes, with its code.

    Attributes:
        file: Of the file and the code, in megabytes.
    """

    file: PartsPredictor

    @classmethod
    def fit(cls, space: SearchSpace, genotypes: Sequence[Genotype], flash_mb: FloatArray) -> Flash:
        """Learn from estimates of networks, shape `(n,)`."""
        return cls(_additive(space, genotypes, flash_mb))

    @one_thread()
    def predict_mb(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        flash_mb: FloatArray = self.file.estimate(self.file.space.matrix(genotypes))[:, 0]
        return flash_mb

    def held_out_errors(self) -> FloatArray:
        return self.file.held_out_errors()

    def save(self, path: Path) -> None:
        self.file.save(path)

    @classmethod
    def load(cls, path: Path) -> Flash:
        """Read what `save` wrote.

        Raises:
            ConfigError: The code of the space was another.
        """
        return cls(_loaded(path))


def _additive(
    space: SearchSpace, genotypes: Sequence[Genotype], megabytes: FloatArray
) -> PartsPredictor:
    """Learn what kernels take; megabytes add up as milliseconds do."""
    return PartsPredictor("kernels", space, kernels(space, 1), genotypes, megabytes)


def _loaded(path: Path) -> PartsPredictor:
    with decoding(path / "predictor.npz", AGAIN):
        return PartsPredictor.load(path, "kernels", kernels)
