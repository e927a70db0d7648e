"""How repeatable latencies are on this machine, for the ways of measuring that were considered.

    python experiments/measurement_noise/run.py

Part 1 times the same networks in blocks of 2, 5 and 10 ms, keeps every single inference, and
compares ways of making one number of them. Part 2 measures them with the `cpu` device, twice in
new processes, with its defaults and with single settings changed. Part 3 measures them with its
defaults while a second process loads the machine now and then. All percentages are absolute
differences between two measurements of one network.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import nas.devices
from nas.core.files import write_json_atomically
from nas.core.host import measuring
from nas.core.measurement import Measurement
from nas.devices import runtimes
from nas.devices.measuring.environment import describe_host, load_average
from nas.devices.measuring.runtime import Execution, LoadedNetwork, random_images
from nas.network.onnx import export_onnx

FloatArray = npt.NDArray[np.float64]
SHAPE = (3, 32, 32)
NETWORKS = 16
BLOCKS_MS = (2, 5, 10)
TIMED_MS = 400  # per network and block length
STATISTICS: dict[str, Callable[[FloatArray], float]] = {
    "mean": lambda times: float(times.mean()),
    "mean without first": lambda times: float(times[1:].mean()),
    "median without first": lambda times: float(np.median(times[1:])),
    "lower quartile without first": lambda times: float(np.percentile(times[1:], 25)),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "0.2 s a network": {"relative_ci": 1e-9, "max_seconds_per_model": 0.2},
    "0.2 s, no repeated rounds": {
        "relative_ci": 1e-9,
        "max_seconds_per_model": 0.2,
        "max_repeated_share": 0.0,
    },
    "0.2 s, blocks of 5 ms": {
        "relative_ci": 1e-9,
        "max_seconds_per_model": 0.2,
        "block_ms": 5.0,
    },
}
LOAD_SECONDS = (0.5, 2.0)
IDLE_SECONDS = (1.0, 4.0)
LOADED_RUNS = 3
TARGET_PERCENT = {"median": 0.5, "p95": 2.0}
SECOND_PROCESS = f"""
import random, time
import numpy as np
rng, matrix = random.Random(0), np.random.default_rng(0).standard_normal((400, 400))
while True:
    end = time.perf_counter() + rng.uniform(*{LOAD_SECONDS})
    while time.perf_counter() < end:
        matrix @ matrix
    time.sleep(rng.uniform(*{IDLE_SECONDS}))
"""
"""Works on all cores, as a training or a compiler does, and rests for longer than it works."""


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 (Sandler et al., CVPR 2018), without its activation's cap."""

    def __init__(self, width: int, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = width * expansion
        self.body = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, width, H, W)` to the same shape."""
        out: Tensor = x + self.body(x)
        return out


def random_network(rng: np.random.Generator) -> nn.Module:
    """Draw a small convolutional network (0.03 to 2 ms on a current core)."""
    width = int(rng.choice([8, 16, 32]))
    blocks = [
        InvertedResidual(width, int(rng.choice([2, 4, 6])), int(rng.choice([3, 5, 7])))
        for _ in range(int(rng.integers(2, 9)))
    ]
    stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
    pool, head = nn.AdaptiveAvgPool2d(1), nn.Linear(width, 10)
    return nn.Sequential(stem, *blocks, pool, nn.Flatten(), head)


def single_inferences(networks: Sequence[LoadedNetwork]) -> dict[int, list[list[FloatArray]]]:
    """Time every network in blocks of every length; return the inferences (ms) of every block.

    The lengths take turns every 10 ms a network, so that all of them see the same slow phases.
    """
    rng = np.random.default_rng(0)
    counts = {
        block_ms: [network.warm_up(0.02, block_ms) + 1 for network in networks]
        for block_ms in BLOCKS_MS
    }
    timed: dict[int, list[list[FloatArray]]] = {
        block_ms: [[] for _ in networks] for block_ms in BLOCKS_MS
    }
    turns = [block_ms for block_ms in BLOCKS_MS for _ in range(max(BLOCKS_MS) // block_ms)]
    for _ in range(TIMED_MS // max(BLOCKS_MS)):
        for block_ms in rng.permutation(turns):
            for index in rng.permutation(len(networks)):
                times = [networks[index].time_ms() for _ in range(counts[block_ms][index])]
                timed[block_ms][index].append(np.array(times))
    return timed


def differences(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return absolute differences in percent of the mean."""
    return 200 * np.abs(first - second) / (first + second)


def halves(series: Sequence[Sequence[float]], percentile: float) -> FloatArray:
    """Return, for every network, the difference between its first and its second half."""
    cut = [len(samples) // 2 for samples in series]
    first = [np.percentile(s[:n], percentile) for s, n in zip(series, cut, strict=True)]
    second = [np.percentile(s[n:], percentile) for s, n in zip(series, cut, strict=True)]
    return differences(np.array(first), np.array(second))


def odd_even(series: Sequence[Sequence[float]], percentile: float) -> FloatArray:
    """Return, for every network, the difference between its odd and its even rounds."""
    odd = [np.percentile(samples[::2], percentile) for samples in series]
    even = [np.percentile(samples[1::2], percentile) for samples in series]
    return differences(np.array(odd), np.array(even))


def summary(values: FloatArray) -> dict[str, float]:
    """Return median and 95th percentile."""
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def compare_statistics(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Run part 1."""
    runtime, images = runtimes.get("onnxruntime"), random_images((1, *SHAPE))
    networks = [runtime.load(path, images, Execution()) for path in paths]
    rows = []
    with measuring():
        timed = single_inferences(networks)
    for block_ms, blocks in timed.items():
        for name, statistic in STATISTICS.items():
            series = [[statistic(times) for times in each] for each in blocks]
            for percentile in (10, 50):
                result = summary(halves(series, percentile))
                rows.append(
                    {"block_ms": block_ms, "sample": name, "percentile": percentile} | result
                )
        pooled = [list(np.concatenate(each)) for each in blocks]
        result = summary(halves(pooled, 10))
        rows.append({"block_ms": block_ms, "sample": "each inference", "percentile": 10} | result)
    return rows


def compare_devices(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Run part 2."""
    passes: dict[str, list[list[Measurement]]] = {name: [] for name in VARIANTS}
    for number in range(2):
        for name, fields in VARIANTS.items():
            device = nas.devices.get("cpu", threads=1, **fields)
            passes[name].append(device.measure_many(paths, SHAPE, seed=number))
    return [{"variant": name} | device_row(*both) for name, both in passes.items()]


@contextlib.contextmanager
def second_process() -> Iterator[None]:
    """Load the machine now and then."""
    with subprocess.Popen([sys.executable, "-c", SECOND_PROCESS]) as process:
        try:
            yield
        finally:
            process.kill()


def under_load(paths: Sequence[Path]) -> dict[str, Any]:
    """Run part 3; return the split-half repeatability of all networks and runs, in percent.

    Odd against even rounds tells how well the samples determine the latency; the first half against
    the second one also how often a whole half had no quiet moment.
    """
    device = nas.devices.get("cpu", threads=1)
    with second_process():
        runs = [device.measure_many(paths, SHAPE, seed=number) for number in range(LOADED_RUNS)]
    series = [m.samples_ms for run in runs for m in run]
    latencies = np.array([[m.latency_ms for m in run] for run in runs])
    return {
        "load_seconds": LOAD_SECONDS,
        "idle_seconds": IDLE_SECONDS,
        "networks": len(paths),
        "runs": LOADED_RUNS,
        "rounds": [run[0].protocol["rounds"] for run in runs],
        "rounds_repeated": [run[0].protocol["rounds_repeated"] for run in runs],
        "target_percent": TARGET_PERCENT,
        "odd_even_p10": summary(odd_even(series, 10)),
        "halves_p10": summary(halves(series, 10)),
        "halves_p50": summary(halves(series, 50)),
        "again": summary(differences(latencies[:-1], latencies[1:])),
        "relative_ci_percent": summary(np.array([100 * m.relative_ci for r in runs for m in r])),
    }


def device_row(first: Sequence[Measurement], second: Sequence[Measurement]) -> dict[str, Any]:
    """Return the repeatability of two runs of the device over the same networks."""
    a, b = (np.array([m.latency_ms for m in run]) for run in (first, second))
    shift = np.log(b / a)
    series = [m.samples_ms for m in first]
    return {
        "rounds": first[0].protocol["rounds"],
        "rounds_repeated": first[0].protocol["rounds_repeated"],
        "halves_p10": summary(halves(series, 10)),
        "halves_p50": summary(halves(series, 50)),
        "again": summary(differences(a, b)),
        "again_common_percent": float(100 * np.median(shift)),
        "again_without_common": summary(100 * np.abs(shift - np.median(shift))),
        "relative_ci_percent": summary(np.array([100 * m.relative_ci for m in first])),
        "latency_ms": [float(a.min()), float(a.max())],
    }


def show(
    part_1: Sequence[dict[str, Any]], part_2: Sequence[dict[str, Any]], part_3: dict[str, Any]
) -> None:
    """Print all tables, as median / 95th percentile over the networks, in percent."""
    print("first half against second half, median / p95 in %")
    for row in part_1:
        label = f"{row['block_ms']:>3} ms  p{row['percentile']} of {row['sample']}"
        print(f"{label:<45}{row['median']:6.2f} / {row['p95']:.2f}")
    print("the cpu device, median / p95 in %")
    for row in part_2:
        print(f"{row['variant']} ({row['rounds']} rounds, {row['rounds_repeated']} repeated)")
        names = ("halves_p10", "halves_p50", "again", "again_without_common", "relative_ci_percent")
        for name in names:
            print(f"    {name:<22}{row[name]['median']:6.2f} / {row[name]['p95']:.2f}")
    target = f"{TARGET_PERCENT['median']} / {TARGET_PERCENT['p95']}"
    print(f"beside a second process, median / p95 in % (target of split halves: {target})")
    for name in ("odd_even_p10", "halves_p10", "halves_p50", "again", "relative_ci_percent"):
        print(f"    {name:<22}{part_3[name]['median']:6.2f} / {part_3[name]['p95']:.2f}")


def main() -> None:
    """Run all parts and write `results.json` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--networks", type=int, default=NETWORKS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    host = describe_host() | {"load_before": load_average()}
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            export_onnx(random_network(rng), SHAPE, Path(folder) / f"{i}.onnx")
            for i in range(arguments.networks)
        ]
        part_1, part_2 = compare_statistics(paths), compare_devices(paths)
        part_3 = under_load(paths)
    host["load_after"] = load_average()
    parts = {"block_statistics": part_1, "devices": part_2, "under_load": part_3}
    write_json_atomically(arguments.out, {"environment": host} | parts)
    show(part_1, part_2, part_3)


if __name__ == "__main__":
    main()
