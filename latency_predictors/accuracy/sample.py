"""Networks and what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_predictors.calibration.sampling import measure_genotypes
from nas.core.measurement import Device, Measurement
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace


@dataclass(frozen=True)
class Sample:
    """Measured networks.

    Attributes:
        genotypes: Of the networks.
        measurements: In the same order.
    """

    genotypes: Sequence[Genotype]
    measurements: Sequence[Measurement]

    @property
    def latency_ms(self) -> FloatArray:
        """Measured latencies, shape `(n,)`."""
        return np.array([m.latency_ms for m in self.measurements])

    @property
    def peak_memory_mb(self) -> FloatArray:
        """Measured peaks, shape `(n,)`."""
        return np.array([m.peak_memory_mb for m in self.measurements], float)


def fresh(
    space: SearchSpace, n: int, rng: np.random.Generator, known: Sequence[Genotype]
) -> list[Genotype]:
    """Draw `n` distinct random networks that are not `known`."""
    drawn = dict.fromkeys(known)
    while len(drawn) < len(known) + n:
        drawn.setdefault(space.sample(rng))
    return list(drawn)[len(known) :]


def measured(
    space: SearchSpace,
    device: Device,
    genotypes: Sequence[Genotype],
    store: MeasurementStore,
    *,
    seconds: float,
    seed: int,
    memory: bool = False,
    again: bool = False,
) -> Sample:
    """Measure networks, or recall from the store what was measured.

    Args:
        space: Of the networks.
        device: Where they are measured.
        genotypes: Which networks.
        store: Of what is measured.
        seconds: Most seconds of timed inference of each.
        seed: Of the order of the measurements.
        memory: Whether to measure peak memory as well.
        again: Whether this is a second measurement, which has a store of its own.
    """
    taken = measure_genotypes(
        space,
        device,
        genotypes,
        seconds=seconds,
        memory=memory,
        seed=seed + again,
        store=MeasurementStore(store.folder / "again") if again else store,
    )
    return Sample(genotypes, taken)
