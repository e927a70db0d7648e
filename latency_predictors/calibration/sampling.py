"""The networks that a calibration measures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latency_predictors import PredictorSettings
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.measurement import Device, Measurement
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

if TYPE_CHECKING:
    from nas.network.assembly import Assembler

ATTEMPTS_PER_SAMPLE = 50

CANDIDATES = 512
"""Random architectures among which the spread ones are chosen."""

CONTENDERS = 16
"""Random architectures of which the one is measured that a first fit is least sure of."""

SPREAD_SHARE = 0.6
"""Share of the samples that are spread over the space; the rest are chosen by a first fit."""


def choose(space: SearchSpace, samples: int, seed: int) -> list[Genotype]:
    """Choose distinct architectures that are spread over the space.

    The smallest and the largest choices; then random ones, one from each of as many equal parts of
    the range of multiply-accumulate operations.

    Raises:
        ConfigError: The space holds fewer architectures than `samples`.
    """
    rng = np.random.default_rng(seed)
    corners = ([0] * len(space.genes), [n - 1 for n in space.cardinalities])
    chosen = dict.fromkeys(space.canonical(corner) for corner in corners)
    drawn = space.samples(max(CANDIDATES, 4 * samples), rng)
    order = np.argsort(space.costs(drawn)["macs_m"].to_numpy(), kind="stable")
    for portion in np.array_split(order, max(samples - len(chosen), 1)):
        chosen.setdefault(tuple(drawn[rng.choice(portion)].tolist()))
    for _ in range(samples * ATTEMPTS_PER_SAMPLE):
        if len(chosen) >= samples:
            return list(chosen)[:samples]
        chosen.setdefault(space.sample(rng))
    expected = f"at most the {len(chosen)} architectures found in the space"
    raise ConfigError("latency_predictor.samples", samples, expected)


def measure_genotypes(
    space: SearchSpace,
    device: Device,
    genotypes: Sequence[Genotype],
    *,
    seconds: float | None = None,
    memory: bool = False,
    seed: int = 0,
    store: MeasurementStore | None = None,
) -> list[Measurement]:
    """Measure networks with initial weights, on which the latency does not depend.

    Args:
        space: Of the networks.
        device: Where they are measured.
        genotypes: Which networks.
        seconds: Most seconds of timed inference of each.
        memory: Whether to measure peak memory as well.
        seed: Of the order of the measurements.
        store: What is in it is not measured again; what is measured is added.
    """
    names = [space.architecture(genotype).arch_id for genotype in genotypes]
    known: dict[str, Measurement] = {}
    for name in names if store else ():
        assert store is not None
        if (found := store.find(device, name, seconds, memory=memory)) is not None:
            known[name] = found
    missing = {n: g for n, g in zip(names, genotypes, strict=True) if n not in known}
    if missing:
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            paths = _assembler(space).write(list(missing.values()), Path(folder))
            taken = device.measure_many(
                paths, space.input_shape, memory=memory, seed=seed, seconds_per_model=seconds
            )
        known |= zip(missing, taken, strict=True)
        for name in missing if store else ():
            assert store is not None
            store.add(device, name, seconds, known[name])
    return [known[name] for name in names]


@lru_cache(maxsize=4)
def _assembler(space: SearchSpace) -> Assembler:
    # PyTorch and the exporter take seconds to load.
    from nas.network.assembly import Assembler

    return Assembler(space)


def measure_samples(
    space: SearchSpace,
    device: Device,
    settings: PredictorSettings,
    seed: int,
    store: MeasurementStore | None = None,
    *,
    memory: bool = False,
) -> tuple[list[Genotype], list[Measurement]]:
    """Choose architectures and measure them: first ones, then those that a fit is unsure of."""
    spread = settings.first_samples(space, seed)

    def measured(genotypes: Sequence[Genotype]) -> list[Measurement]:
        seconds = settings.seconds_per_sample
        return measure_genotypes(
            space, device, genotypes, seconds=seconds, memory=memory, seed=seed, store=store
        )

    measurements = measured(spread)
    missing = settings.samples - len(spread)
    if not missing:
        return spread, measurements
    first = settings.fit(space, spread, np.array([m.latency_ms for m in measurements]))
    rng = np.random.default_rng([seed, 1])
    chosen = dict.fromkeys(spread)
    for _ in range(missing * ATTEMPTS_PER_SAMPLE):
        if len(chosen) == settings.samples:
            break
        contenders = space.samples(CONTENDERS, rng)
        prediction = first.predict(contenders)
        unsure = int(np.argmax(prediction.std_ms / prediction.mean_ms))
        chosen.setdefault(tuple(contenders[unsure].tolist()))
    else:
        expected = f"at most the {len(chosen)} architectures found in the space"
        raise ConfigError("latency_predictor.samples", settings.samples, expected)
    rest = list(chosen)[len(spread) :]
    return [*spread, *rest], [*measurements, *measured(rest)]


def save_samples(
    path: Path, genotypes: Sequence[Genotype], measurements: Sequence[Measurement]
) -> None:
    """Write all samples of a calibration to `path/calibration.json`."""
    path.mkdir(parents=True, exist_ok=True)
    pairs = zip(genotypes, measurements, strict=True)
    samples = [{"genotype": g, **m.to_dict()} for g, m in pairs]
    write_json_atomically(path / "calibration.json", {"samples": samples})
