"""How accurate predicted peak memory is, on networks that it was not learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from latency_predictors.accuracy.sample import Sample, fresh, measured
from latency_predictors.accuracy.scores import scores
from latency_predictors.calibration.memory import PeakMemory, measured_memory
from latency_predictors.calibration.sampling import choose
from nas.core.errors import DeviceError
from nas.core.measurement import Device
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

SECONDS = 0.01
"""Memory comes with a measurement of the latency, which is not used here."""


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How much is measured.

    Attributes:
        samples: Networks of the calibration.
        held_out: Fresh random networks.
        repeated: How many of these are measured a second time.
        seed: Of everything random; 0 was used while the predictor was made.
    """

    samples: int = 100
    held_out: int = 200
    repeated: int = 30
    seed: int = 1


def compare(
    space: SearchSpace,
    device: Device,
    store: MeasurementStore,
    settings: MemorySettings,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Hold predicted against measured peaks; nothing else on the device disturbs them.

    Args:
        space: Of the networks.
        device: Where they are measured.
        store: Of what is measured; what is in it is not measured again.
        settings: How much is measured.
        progress: Told what comes next.

    Returns:
        `predicted` and `repeated`, scores of the prediction and of a second measurement;
        `file`, by how many percent files are larger than the weights that are counted.

    Raises:
        DeviceError: The device cannot tell how much memory a network takes.
    """

    def taken(genotypes: list[tuple[int, ...]], *, again: bool = False) -> Sample:
        return measured(
            space,
            device,
            genotypes,
            store,
            seconds=SECONDS,
            seed=settings.seed,
            memory=True,
            again=again,
        )

    progress(f"measuring {settings.samples} networks")
    calibration = taken(choose(space, settings.samples, settings.seed))
    if not measured_memory(calibration.measurements):
        raise DeviceError("the device cannot tell how much memory a network takes")
    progress(f"measuring {settings.held_out} fresh networks")
    rng = np.random.default_rng([settings.seed, 3])
    held_out = taken(fresh(space, settings.held_out, rng, calibration.genotypes))
    progress(f"measuring {settings.repeated} of them again")
    again = taken(list(held_out.genotypes[: settings.repeated]), again=True)
    fitted = PeakMemory.fit(space, calibration.genotypes, calibration.measurements)
    peak_mb = held_out.peak_memory_mb
    return {
        "peak_memory_mb": [float(peak_mb.min()), float(np.median(peak_mb)), float(peak_mb.max())],
        "predicted": scores(fitted.predict_mb(held_out.genotypes), peak_mb),
        "repeated": scores(again.peak_memory_mb, peak_mb[: settings.repeated]),
        "file": _file(space, held_out),
    }


def _file(space: SearchSpace, sample: Sample) -> dict[str, float]:
    files_mb = np.array([m.model_size_mb for m in sample.measurements], float)
    counted_mb = space.costs(sample.genotypes)["model_size_mb"].to_numpy(float)
    larger = 100 * (files_mb / counted_mb - 1)
    return {"median_percent": float(np.median(larger)), "largest_percent": float(larger.max())}
