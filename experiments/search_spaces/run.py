"""How fast spaces count and build, and how large they are.

Run `python experiments/search_spaces/run.py` on a machine that does nothing else. Every preset of
every registered space is taken in a process of its own, so that nothing is warm from another. It
writes `results.json` beside this file.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from nas.core.files import write_json_atomically
from nas.devices.measuring.environment import describe_host
from nas.study.record import versions

GENOTYPES = 100_000
REPEATS = 5
BUILDS = 30


def seconds(function: Any, *arguments: Any) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def measure(space_name: str, preset_name: str) -> dict[str, Any]:
    """Return sizes and times of one preset."""
    import numpy as np

    import search_spaces

    presets = {p.name: p for p in search_spaces.component(space_name).presets()}
    preset = presets[preset_name]
    space = search_spaces.get(space_name, **preset.settings)
    rng = np.random.default_rng(0)
    genotypes = rng.integers(0, space.cardinalities, (GENOTYPES, len(space.genes)))
    warm_up_s = seconds(space.costs, genotypes)
    costs_s = [seconds(space.costs, genotypes) for _ in range(REPEATS)]
    samples = space.samples(BUILDS, rng).tolist()
    space.build(samples[0])
    build_ms = sorted(1e3 * seconds(space.build, genotype) for genotype in samples)
    return {
        "space": space_name,
        "preset": preset_name,
        "input_shape": list(space.input_shape),
        "genes": sum(n > 1 for n in space.cardinalities),
        "size": space.size,
        "published_size": preset.published_size,
        "source": preset.source,
        "warm_up_s": warm_up_s,
        "costs_s_median_max": [statistics.median(costs_s), max(costs_s)],
        "build_ms_median_max": [statistics.median(build_ms), build_ms[-1]],
    }


def main() -> None:
    """Measure every preset and print a table."""
    import search_spaces

    rows = []
    spawn = multiprocessing.get_context("spawn")
    for name in search_spaces.names():
        for preset in search_spaces.component(name).presets():
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                row = pool.submit(measure, name, preset.name).result()
            rows.append(row)
            print(
                f"| {name} | {preset.name} | {row['size']:.3g} | {row['published_size']} "
                f"| {row['warm_up_s']:.1f} | {row['costs_s_median_max'][0]:.2f} "
                f"/ {row['costs_s_median_max'][1]:.2f} | {row['build_ms_median_max'][0]:.0f} "
                f"/ {row['build_ms_median_max'][1]:.0f} |",
                flush=True,
            )
    record = {
        "genotypes": GENOTYPES,
        "presets": rows,
        "versions": versions(),
        "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
    }
    write_json_atomically(Path(__file__).with_name("results.json"), record)


if __name__ == "__main__":
    main()
