"""How accurate predicted peak memory is, on networks that it was not learned from.

    python experiments/peak_memory/run.py                    # mobilenet, vit and darts
    python experiments/peak_memory/run.py vit --out mine

What was measured is kept in the folder of the results, and not measured again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.accuracy import (
    SPACES,
    Progress,
    Sample,
    accuracy_rows,
    arguments,
    fresh,
    measured,
)
from _shared.markdown import markdown

import nas.devices
import search_spaces
from latency_predictors.calibration.accuracy import scores
from latency_predictors.calibration.memory import PeakMemory, measured_memory
from latency_predictors.calibration.sampling import choose
from nas.core.errors import DeviceError, HwnasError
from nas.core.files import write_json_atomically
from nas.core.measurement import Device
from nas.devices.measuring.environment import describe_host
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace

HERE = Path(__file__).resolve().parent

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


def run(names: Sequence[str], device: str, out: Path) -> None:
    """Measure how accurate predicted peak memory is; write a table to `out`.

    Args:
        names: Of spaces in `SPACES`.
        device: Name of the device.
        out: Folder; what was measured is kept in it, and not measured again.
    """
    store = MeasurementStore(out / "measurements")
    summaries = []
    for name in names:
        space = search_spaces.get(name, **SPACES[name])
        found = compare(space, nas.devices.get(device), store, MemorySettings(), Progress(name))
        summaries.append({"space": name, "settings": SPACES[name], "host": describe_host()} | found)
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomically(out / "results.json", {s["space"]: s for s in summaries})
    rows = {"predicted": "predicted", "repeated": "measured again"}
    table = pd.concat([accuracy_rows(s, "peak memory", rows) for s in summaries])
    Console().print(markdown(table), markup=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        given = arguments(__doc__, HERE)
        run(given.spaces, given.device, given.out)
    except HwnasError as error:
        sys.exit(f"error: {error}")
