"""The networks that a calibration measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latency_predictors import PredictorSettings
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.measurement import Device, Measurement
from nas.core.space import Genotype
from nas.network.space import SearchSpace

ATTEMPTS_PER_SAMPLE = 50


def choose(space: SearchSpace, samples: int, seed: int) -> list[Genotype]:
    """Choose distinct architectures: the smallest and largest choices, the rest at random.

    Raises:
        ConfigError: The space holds fewer architectures than `samples`.
    """
    rng = np.random.default_rng(seed)
    corners = ([0] * len(space.genes), [n - 1 for n in space.cardinalities])
    chosen = dict.fromkeys(space.canonical(corner) for corner in corners)
    for _ in range(samples * ATTEMPTS_PER_SAMPLE):
        if len(chosen) >= samples:
            return list(chosen)[:samples]
        chosen.setdefault(space.sample(rng))
    expected = f"at most the {len(chosen)} architectures found in the space"
    raise ConfigError("latency_predictor.samples", samples, expected)


def measure_samples(
    space: SearchSpace, device: Device, settings: PredictorSettings, seed: int
) -> tuple[list[Genotype], list[Measurement]]:
    """Measure chosen architectures with random weights, which the latency does not depend on."""
    genotypes = choose(space, settings.samples, seed)
    networks = [space.build(genotype) for genotype in genotypes]
    return genotypes, device.measure_many(
        networks, space.input_shape, seed=seed, seconds_per_model=settings.seconds_per_sample
    )


def save_samples(
    path: Path, genotypes: Sequence[Genotype], measurements: Sequence[Measurement]
) -> None:
    """Write all samples of a calibration to `path/calibration.json`."""
    path.mkdir(parents=True, exist_ok=True)
    pairs = zip(genotypes, measurements, strict=True)
    samples = [{"genotype": g, **m.to_dict()} for g, m in pairs]
    write_json_atomically(path / "calibration.json", {"samples": samples})
