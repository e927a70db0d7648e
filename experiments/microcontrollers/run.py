"""How accurately memory, flash and time on microcontrollers are predicted, against the tools.

    python experiments/microcontrollers/run.py                # 40 samples, 100 fresh networks
    python experiments/microcontrollers/run.py --report       # of what is there by now

A network is converted once, which takes some seconds, and then given to TensorFlow Lite Micro and
to Vela for three accelerators. `networks.csv` has a row a network, which is not made again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.accuracy import COLUMNS, fresh
from _shared.markdown import markdown

import latency_predictors
import nas.devices
import search_spaces
from latency_predictors.calibration.accuracy import scores
from latency_predictors.calibration.footprint import Flash, Sram
from latency_predictors.calibration.sampling import choose
from nas.core.files import temporary_folder, write_json_atomically
from nas.core.measurement import Device
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.space import SearchSpace

HERE = Path(__file__).resolve().parent

SHAPE = (3, 32, 32)
SAMPLES, FRESH, SEED = 40, 100, 0
TOOLS = {
    "mcu": {"name": "mcu"},
    "u55": {"name": "ethos_u"},
    "u65": {
        "name": "ethos_u",
        "accelerator": "ethos-u65-256",
        "system_config": "Ethos_U65_Embedded",
    },
    "u85": {
        "name": "ethos_u",
        "accelerator": "ethos-u85-256",
        "system_config": "Ethos_U85_SYS_Flash_High",
    },
}
"""Devices, all with the memory mode `Shared_Sram`, and without code: its constant share of the
flash would make errors smaller."""


def small_space() -> SearchSpace:
    """Return the space: three inverted residuals for images of 32 pixels, 41,472 networks."""
    return search_spaces.get(
        "mobilenet",
        input_shape=SHAPE,
        resolutions=(32,),
        num_classes=10,
        stage_channels=(16, 24, 40),
        stage_strides=(1, 2, 2),
        max_depth=1,
    )


def networks(space: SearchSpace) -> Iterator[tuple[str, Genotype]]:
    """Yield samples of a calibration and fresh random networks in turn, with their part."""
    samples = choose(space, SAMPLES, SEED)
    others = fresh(space, FRESH, np.random.default_rng([SEED, 1]), samples)
    for sample, other in zip_longest(samples, others):
        if sample is not None:
            yield "sample", sample
        yield "fresh", other


def estimated(space: SearchSpace, devices: Mapping[str, Device], genotype: Genotype) -> dict:
    """Return what the tools say of one network, and the arena that is planned."""
    row: dict[str, float] = {"planned_head_kb": float(space.arena_kb([genotype])[0])}
    torch.manual_seed(SEED)
    with temporary_folder() as folder:
        files = devices["mcu"].prepare([space.build(genotype)], SHAPE, folder)
        for name, device in devices.items():
            (measurement,) = device.measure_files(files, SHAPE)
            for column, value in measurement.columns.items():
                if value is not None:
                    row[f"{name}_{column.removesuffix('_estimated')}"] = value
            for part in ("head", "tail"):
                if (size := measurement.environment.get(f"arena_{part}_bytes")) is not None:
                    row[f"{name}_{part}_kb"] = size / 1024
    return row


def estimate_all(space: SearchSpace, file: Path) -> None:
    """Add a row to `file` for every network that has none yet."""
    devices = {name: nas.devices.get(**given, code_kb=0.0) for name, given in TOOLS.items()}
    rows = pd.read_csv(file).to_dict("records") if file.is_file() else []
    known = {row["arch_id"] for row in rows}
    for part, genotype in networks(space):
        arch_id = space.architecture(genotype).arch_id
        if arch_id in known:
            continue
        choices = "-".join(map(str, genotype))
        row = {"arch_id": arch_id, "part": part, "genotype": choices}
        rows.append(row | estimated(space, devices, genotype))
        pd.DataFrame(rows).to_csv(file, index=False, float_format="%.6g")
        print(len(rows), arch_id, part, flush=True)


def accuracy(space: SearchSpace, frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return scores of every prediction on fresh networks, one row each."""
    genotypes = [tuple(map(int, text.split("-"))) for text in frame["genotype"]]
    sampled = (frame["part"] == "sample").to_numpy()
    samples = [g for g, chosen in zip(genotypes, sampled, strict=True) if chosen]
    others = [g for g, chosen in zip(genotypes, sampled, strict=True) if not chosen]
    at, new = frame[sampled], frame[~sampled]
    rows = [_row("arena's head", "planned, of nothing", new["planned_head_kb"], new["mcu_head_kb"])]
    for name in TOOLS:
        tail = at[f"{name}_tail_kb"] if name == "mcu" else 0 * at[f"{name}_sram_kb"]
        sram = Sram.fit(space, samples, _mb(at[f"{name}_sram_kb"]), _mb(tail))
        flash = Flash.fit(space, samples, _mb(at[f"{name}_flash_kb"]))
        for quantity, predictor in {"sram_kb": sram, "flash_kb": flash}.items():
            predicted_kb = predictor.predict_mb(others) * 1e6 / 1024
            told = new[f"{name}_{quantity}"]
            rows.append(_row(f"{name} {quantity}", "learned", predicted_kb, told))
        if (time := f"{name}_latency_ms") in frame:
            times = latency_predictors.get("auto").fit(space, samples, np.array(at[time]))
            predicted_ms = times.predict(others).mean_ms
            rows.append(_row(f"{name} latency_ms", "learned", predicted_ms, new[time]))
    return rows


def _mb(kilobytes: pd.Series) -> FloatArray:
    return kilobytes.to_numpy(float) * 1024 / 1e6


def _row(quantity: str, how: str, predicted: object, told: pd.Series) -> dict[str, object]:
    values = told.to_numpy(float)
    found = scores(np.asarray(predicted, float), values)
    low, median, high = np.percentile(values, [0, 50, 100])
    values_seen = {"least": low, "median": median, "most": high}
    return {"quantity": quantity, "prediction": how, **values_seen, **found}


def main() -> None:
    """Run the tools, and write `results.json` and `networks.csv`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=HERE)
    chosen = parser.parse_args()
    space, file = small_space(), chosen.out / "networks.csv"
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.report:
        estimate_all(space, file)
    frame = pd.read_csv(file)
    rows = accuracy(space, frame)
    counts = {part: int(n) for part, n in frame["part"].value_counts().items()}
    write_json_atomically(chosen.out / "results.json", {"networks": counts, "accuracy": rows})
    Console().print(counts)
    table = pd.DataFrame(rows).rename(columns=COLUMNS)
    print(markdown(table))


if __name__ == "__main__":
    main()
