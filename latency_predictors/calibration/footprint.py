"""What a network takes of a microcontroller's memories, learned from the estimates of tools.

The arena of TensorFlow Lite Micro has two parts that follow other laws, as peak memory has. Its
head holds the activations that are alive at once, which is counted on the network; the tool's
planner may need more, and Arm's compiler Vela less, as it lets layers share buffers and works on
some of them piece by piece. Its tail, and the file in flash, grow with every kernel.
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

HEAD, TAIL = "head", "tail"
"""Folders of the parts of a saved predictor of memory."""


class ArenaRegression(EncodingRegression):
    """A smooth function of the activations that are counted alive at once, and of sizes."""

    name = "arena"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return logarithms of the counted arena and of costs, shape `(n, 5)`."""
        costs = self.space.costs(genotypes)
        sizes = costs[["activations_m", "peak_activation_mb", "macs_m", "params_m"]]
        counted = self.space.arena_kb(genotypes)[:, None]
        every: FloatArray = np.hstack([counted, sizes.to_numpy(float)])
        return np.log(np.maximum(every, 1e-9))


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
