"""Whether a latency that is measured during a search is that of an idle machine.

Run `python experiments/lease/run.py`. It measures the same networks in turn on the idle machine,
while two workers train, and while two workers train that do not know of the lease; it writes
`results.json` beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import nas.devices
import search_spaces
from latency_predictors.calibration.sampling import choose
from nas import data, evaluation
from nas.core.files import write_json_atomically
from nas.core.host import LEASE_FOLDER_VARIABLE
from nas.core.measurement import Device
from nas.core.recipe import Recipe
from nas.core.trial import Candidate
from nas.devices.measuring.environment import describe_host
from nas.network.assembly import Assembler
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob

WORKERS = 2
CONDITIONS = ("idle", "training", "training_without_lease")
WARM_UP_S = 15.0
"""Until workers have loaded PyTorch and train."""

ENDLESS = Recipe(epochs=1_000_000)


def measured(device: Device, files: Sequence[Path], space: SearchSpace) -> list[float]:
    """Return the latency of every network, in milliseconds."""
    return [m.latency_ms for m in device.measure_files(files, space.input_shape)]


@contextlib.contextmanager
def training(space: SearchSpace, *, lease: bool) -> Iterator[None]:
    """Train on workers of a cluster of their own for the time of a `with` block."""
    splits = data.get("digits").search_splits()
    job = TrainingJob(
        space=space,
        train=splits.train,
        held_out=splits.validation,
        preprocessing=Preprocessing.of(splits.train),
        recipe=ENDLESS,
    )
    genotypes = choose(space, WORKERS + 2, seed=1)[-WORKERS:]
    settings = evaluation.get("training", workers=WORKERS)
    with tempfile.TemporaryDirectory() as elsewhere, contextlib.ExitStack() as stack:
        with _environment({} if lease else {LEASE_FOLDER_VARIABLE: elsewhere}):
            stack.enter_context(settings.connected(None))
        evaluator = stack.enter_context(closing(settings.start(job)))
        evaluator.submit(
            [
                Candidate(number=i, genotype=g, arch_id=space.architecture(g).arch_id, seed=i)
                for i, g in enumerate(genotypes)
            ]
        )
        time.sleep(WARM_UP_S)
        yield


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Change this process's environment, which a cluster that starts meanwhile inherits."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def alternate(
    device: Device, files: Sequence[Path], space: SearchSpace, rounds: int
) -> dict[str, list[list[float]]]:
    """Return the latencies by condition, one list a round."""
    found: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    for number in range(rounds):
        # The order turns, so that a machine that slows down does not favour one condition.
        for name in np.roll(CONDITIONS, number):
            if name == "idle":
                latencies = measured(device, files, space)
            else:
                with training(space, lease=name == "training"):
                    latencies = measured(device, files, space)
            found[str(name)].append(latencies)
            print(f"round {number + 1}/{rounds} {name}: {np.round(latencies, 4)}", flush=True)
    return found


def differences(found: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Return by how many percent every condition differs from the idle machine.

    Medians over the rounds are compared; beside them stands how far single rounds on the idle
    machine lie from their own median.
    """
    idle = np.array(found["idle"])
    centre = np.median(idle, axis=0)
    own = 100 * np.abs(idle / centre - 1)
    result: dict[str, Any] = {"idle_rounds_percent": _summary(own)}
    for name in CONDITIONS[1:]:
        signed = 100 * (np.median(found[name], axis=0) / centre - 1)
        result[f"{name}_percent"] = _summary(np.abs(signed)) | {"by_network": signed.tolist()}
    return result


def _summary(percent: np.ndarray[Any, Any]) -> dict[str, float]:
    return {"median": float(np.median(percent)), "largest": float(np.max(percent))}


def main() -> None:
    """Measure, print and write the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    # Networks of 0.05 to some ms; the same space trains on digits, enlarged by its resolutions.
    space = search_spaces.get("mobilenet", input_shape=(1, 8, 8), num_classes=10)
    device = nas.devices.get("cpu")
    with tempfile.TemporaryDirectory() as folder:
        genotypes = choose(space, arguments.networks, seed=0)
        files = Assembler(space).write(genotypes, Path(folder))
        found = alternate(device, files, space, arguments.rounds)
    result = differences(found)
    for name, summary in result.items():
        print(f"{name}: median {summary['median']:.2f}, largest {summary['largest']:.2f}")
    write_json_atomically(
        arguments.out,
        {**result, "latency_ms": found, "workers": WORKERS, "hardware": describe_host()},
    )


if __name__ == "__main__":
    main()
