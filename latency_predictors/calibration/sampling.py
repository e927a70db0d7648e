"""The networks that a calibration measures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_predictors import AGAIN, LEAST_SAMPLES, PredictorSettings
from nas.core.errors import ConfigError, counted
from nas.core.files import temporary_folder, write_json_atomically
from nas.core.measurement import Deployable, Device, Measurement
from nas.core.prediction import FloatArray
from nas.core.records import decoding, read_json
from nas.core.space import Genotype
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from nas.network.assembly import Assembler

ATTEMPTS_PER_SAMPLE = 50

PREPARED_S = 2.0
"""Seconds that exporting and loading a small network for its measurement takes, about."""

CANDIDATES = 512
"""Random architectures among which the spread ones are chosen."""

CONTENDERS = 16
"""Random architectures of which the one is measured that a first fit is least sure of."""

SPREAD_SHARE = 0.6
"""Share of the samples that are spread over the space; the rest are chosen by a first fit."""

PORTION = 100
"""Networks that are measured together where a store keeps them: what a crash loses at most. The
more there are, the less a slow phase of the machine falls onto a few of them."""


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
    raise too_many(samples, len(chosen))


def too_many(samples: int, found: int) -> ConfigError:
    """Return the error of more samples than architectures were found."""
    expected = f"at most the {found} architectures found in the space"
    return ConfigError("latency_predictor.samples", samples, expected)


def measure_genotypes(
    space: SearchSpace,
    device: Device,
    genotypes: Sequence[Genotype],
    *,
    seconds: float | None = None,
    memory: bool = False,
    seed: int = 0,
    store: MeasurementStore | None = None,
    on_progress: Callable[[int, str], None] | None = None,
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
        on_progress: Called with the number of those that are measured and with what is done now,
            whenever one of them changes.
    """
    names = [space.architecture(genotype).arch_id for genotype in genotypes]
    known: dict[str, Measurement] = {}
    for name in names:
        found = None if store is None else store.find(device, name, seconds, memory=memory)
        if found is not None:
            known[name] = found
    tell = on_progress or (lambda *_: None)
    tell(len(known), "")
    missing = {n: g for n, g in zip(names, genotypes, strict=True) if n not in known}
    # All at once where nothing keeps them anyway.
    portions = 1 if store is None else math.ceil(len(missing) / PORTION)
    for part in np.array_split(list(missing), portions) if missing else ():
        portion: list[str] = part.tolist()
        started = time.monotonic()
        with temporary_folder() as folder:
            chosen = [missing[name] for name in portion]
            tell(len(known), f"exporting {counted(len(chosen), 'network')}")
            written = _models(space, device, chosen, folder)
            models: list[Deployable | nn.Module | Path] = [
                Deployable(model, choices) if (choices := space.deployment(genotype)) else model
                for model, genotype in zip(written, chosen, strict=True)
            ]
            networks = counted(len(chosen), "network")
            doing = f"measuring {networks}, interleaved"
            tell(len(known), f"estimating {networks}" if device.estimated else doing)
            taken = device.measure_many(
                models, space.input_shape, memory=memory, seed=seed, seconds_per_model=seconds
            )
        known |= zip(portion, taken, strict=True)
        took_s = (time.monotonic() - started) / len(portion)
        if store is not None:
            for name in portion:
                store.add(device, name, seconds, known[name], took_s)
        tell(len(known), "")
    return [known[name] for name in names]


def _models(
    space: SearchSpace, device: Device, genotypes: Sequence[Genotype], folder: Path
) -> Sequence[nn.Module | Path]:
    """Return networks in a form that the device takes."""
    if device.takes_onnx:
        return _assembler(space).write(genotypes, folder)
    return [space.build(genotype) for genotype in genotypes]


@lru_cache(maxsize=4)
def _assembler(space: SearchSpace) -> Assembler:
    # PyTorch and the exporter take seconds to load.
    from nas.network.assembly import Assembler

    return Assembler(space)


def samples_within(settings: PredictorSettings, limit_s: float, each_s: float | None = None) -> int:
    """Return how many of the samples are measured in a time, at least `LEAST_SAMPLES`.

    Args:
        settings: With the number of samples.
        limit_s: Seconds of the calibration.
        each_s: Seconds that one takes; `None` where that is not known.
    """
    each_s = each_s or settings.seconds_per_sample + PREPARED_S
    return min(max(int(limit_s / each_s), LEAST_SAMPLES), settings.samples)


def measure_samples(
    space: SearchSpace,
    device: Device,
    settings: PredictorSettings,
    seed: int,
    store: MeasurementStore | None = None,
    *,
    memory: bool = False,
    limit_s: float | None = None,
    on_progress: Callable[[int, str], None] | None = None,
) -> tuple[list[Genotype], list[Measurement]]:
    """Choose architectures and measure them: first ones, then those that a fit is unsure of.

    With `limit_s` there are as many samples as are measured in so many seconds, at most those of
    the settings: the time that the first ones take decides on the others.

    Progress is told as `measure_genotypes` tells it, of all of them.
    """
    samples, started = settings.samples, time.monotonic()
    if limit_s is not None:
        settings = replace(settings, samples=samples_within(settings, limit_s))
    timed = device.times
    spread = settings.first_samples(space, seed) if timed else choose(space, samples, seed)

    def measured(genotypes: Sequence[Genotype], before: int = 0) -> list[Measurement]:
        return measure_genotypes(
            space,
            device,
            genotypes,
            seconds=settings.seconds_per_sample,
            memory=memory,
            seed=seed,
            store=store,
            on_progress=on_progress and (lambda done, now: on_progress(before + done, now)),
        )

    measurements = measured(spread)
    if limit_s is not None:
        each_s = (time.monotonic() - started) / len(spread)
        samples = samples_within(replace(settings, samples=samples), limit_s, each_s)
    missing = max(samples - len(spread), 0)
    if not missing or not timed:
        return spread, measurements
    first = settings.fit(space, spread, np.array([m.latency_ms for m in measurements]))
    rng = np.random.default_rng([seed, 1])
    chosen = dict.fromkeys(spread)
    for _ in range(missing * ATTEMPTS_PER_SAMPLE):
        if len(chosen) == samples:
            break
        contenders = space.samples(CONTENDERS, rng)
        prediction = first.predict(contenders)
        unsure = int(np.argmax(prediction.std_ms / prediction.mean_ms))
        chosen.setdefault(tuple(contenders[unsure].tolist()))
    else:
        raise too_many(samples, len(chosen))
    rest = list(chosen)[len(spread) :]
    return [*spread, *rest], [*measurements, *measured(rest, len(spread))]


def save_samples(
    path: Path,
    space: SearchSpace,
    genotypes: Sequence[Genotype],
    measurements: Sequence[Measurement],
    cost: Mapping[str, Any],
) -> None:
    """Write all samples of a calibration, and what they cost, to `path/calibration.json`."""
    path.mkdir(parents=True, exist_ok=True)
    pairs = zip(genotypes, measurements, strict=True)
    samples = [{"genotype": g, **m.to_dict()} for g, m in pairs]
    record = {"space_id": space.space_id, "cost": dict(cost), "samples": samples}
    write_json_atomically(path / "calibration.json", record)


def load_samples(
    path: Path, space: SearchSpace
) -> tuple[list[Genotype], FloatArray, dict[str, Any]]:
    """Read what `save_samples` wrote into `path`.

    Returns:
        The genotypes, their latencies in milliseconds, shape `(n,)`, and the cost.

    Raises:
        ConfigError: They are of another space, or of one whose code was another.
    """
    file = path / "calibration.json"
    record = read_json(file, {"space_id": str, "cost": dict, "samples": list}, AGAIN)
    if record["space_id"] != space.space_id:
        expected = "the space that its latency predictor was calibrated for, its code included"
        fix = f"give the study another name, or delete {path}"
        raise ConfigError("search_space", type(space).__name__, expected, fix)
    with decoding(file, AGAIN):
        genotypes = [tuple(sample["genotype"]) for sample in record["samples"]]
        latency_ms = [Measurement.from_dict(sample).latency_ms for sample in record["samples"]]
        return genotypes, np.array(latency_ms), record["cost"]
