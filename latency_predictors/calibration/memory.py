"""Peak memory, learned from measurements of whole networks.

A process that runs a network reaches its peak in two phases, which follow other laws and are
therefore measured and learned apart. Loading costs memory for each kernel that the runtime makes:
its node, its weights and their copies in the runtime's own order, little of which the allocator
gives back. Running adds the activations that are alive at once, as the runtime's arena places them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency_predictors import AGAIN
from latency_predictors.additive import BLOCK_WIDTHS, PartsPredictor, best_table
from latency_predictors.calibration.base import CalibratedPredictor, read_saved
from latency_predictors.calibration.parts import kernels
from latency_predictors.regression import EncodingRegression
from nas.core.host import one_thread
from nas.core.measurement import Measurement
from nas.core.prediction import FloatArray, MemoryPredictor
from nas.core.records import decoding
from nas.core.space import Genotype
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace

LOADING, RUNNING, ACTIVATIONS = "loading", "running", "activations"
"""Folders of the parts of a saved predictor."""

SMALLEST_MB = 1e-3
"""Sizes and increments are at least so large, because their logarithms are taken: one page is
four times as much."""


class Activations(EncodingRegression):
    """What running adds, as a smooth function of the activations and the size of a network."""

    name = "activations"

    def features(self, genotypes: IntArray) -> FloatArray:
        """Return logarithms of counted sizes, and choices of the deployment: `(n, 5 + d)`."""
        costs = self.space.costs(genotypes)
        columns = ["peak_activation_mb", "activations_m", "model_size_mb", "macs_m", "params_m"]
        logs = np.log(np.maximum(costs[columns].to_numpy(float), SMALLEST_MB))
        names = [gene.name for gene in self.space.genes]
        deployed = genotypes[:, [names.index(name) for name in self.space.deployment_genes]]
        return np.hstack([logs, deployed])


@dataclass(frozen=True)
class PeakMemory(MemoryPredictor):
    """Predicts the peak memory of a network in a process of its own, above the runtime's own.

    Attributes:
        loading: Of the kernels, the megabytes that they take when a network is loaded.
        running: The same of what they add when it is run.
        activations: What is added, once more: by the network's sizes. Both estimates err in other
            networks, so that their mean is better than either.
    """

    loading: PartsPredictor
    running: PartsPredictor
    activations: Activations

    @classmethod
    def fit(
        cls, space: SearchSpace, genotypes: Sequence[Genotype], measurements: Sequence[Measurement]
    ) -> PeakMemory:
        """Learn from measurements of networks, their memory included."""
        peak_mb = np.array([m.peak_memory_mb for m in measurements], float)
        loading_mb = np.array([m.loading_memory_mb for m in measurements], float)
        added_mb = np.maximum(peak_mb - loading_mb, SMALLEST_MB)
        return cls(
            loading=_learned(LOADING, space, genotypes, loading_mb),
            running=_learned(RUNNING, space, genotypes, added_mb),
            activations=Activations(space, genotypes, added_mb),
        )

    @one_thread()
    def predict_mb(self, genotypes: Sequence[Genotype] | IntArray) -> FloatArray:
        rows = self.loading.space.matrix(genotypes)
        return self._peak_mb(*(part.estimate(rows) for part in self._parts))

    def held_out_errors(self) -> FloatArray:
        measured_mb = self.loading.measured + self.running.measured
        predicted_mb = self._peak_mb(*(part.held_out for part in self._parts))
        errors: FloatArray = predicted_mb / measured_mb - 1
        return errors

    @property
    def _parts(self) -> tuple[CalibratedPredictor, ...]:
        return self.loading, self.running, self.activations

    @staticmethod
    def _peak_mb(loading: FloatArray, running: FloatArray, activations: FloatArray) -> FloatArray:
        peak_mb: FloatArray = loading[:, 0] + (running[:, 0] + activations[:, 0]) / 2
        return peak_mb

    def save(self, path: Path) -> None:
        self.loading.save(path / LOADING)
        self.running.save(path / RUNNING)
        self.activations.save(path / ACTIVATIONS)

    @classmethod
    def load(cls, path: Path) -> PeakMemory:
        """Read what `save` wrote.

        Raises:
            ConfigError: The code of the space was another.
        """
        parts = []
        for part in (LOADING, RUNNING):
            with decoding(path / part / "predictor.npz", AGAIN):
                parts.append(PartsPredictor.load(path / part, part, kernels))
        with decoding(path / ACTIVATIONS / "predictor.npz", AGAIN):
            space, samples = read_saved(path / ACTIVATIONS)
            sizes = Activations(space, samples["genotypes"], samples["measured"])
        return cls(loading=parts[0], running=parts[1], activations=sizes)


def measured_memory(measurements: Sequence[Measurement]) -> bool:
    """Return whether the memory of all networks is known, which not every device can tell."""
    return all(
        m.peak_memory_mb is not None and m.loading_memory_mb is not None for m in measurements
    )


def _learned(
    name: str, space: SearchSpace, genotypes: Sequence[Genotype], megabytes: FloatArray
) -> PartsPredictor:
    """Learn what kernels take; megabytes add up as milliseconds do."""
    table = best_table([kernels(space, width) for width in BLOCK_WIDTHS], genotypes, megabytes)
    return PartsPredictor(name, space, table, genotypes, megabytes)
