"""Which runtimes run which spaces in which precision, and how far their outputs are from PyTorch's.

Run `python experiments/runtimes/matrix.py [--networks N]`. Random networks of every space, with
batch statistics of Fashion-MNIST's images, are run by every runtime that is installed on 64 of
them. Rows go to `matrix.csv`, the table to `matrix.md`; what is there is not done again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown
from _shared.rows import append_row

import search_spaces
from nas import data, devices
from nas.core.errors import DeviceError
from nas.core.measurement import ImageArray
from nas.devices import runtimes
from nas.network.recalibration import recalibrate
from nas.network.trained import Preprocessing

HERE = Path(__file__).resolve().parent
SPACES: dict[str, dict[str, Any]] = {
    "mobilenet": {},
    "mnasnet": {},
    "vit": {},
    "darts": {"channels": [8], "cells_per_stage": [1]},
    "nasbench201": {"cells_per_stage": 1},
    "nasbench_macro": {},
}
IMAGES = 64
KEY = ["runtime", "precision", "space", "network"]


def images() -> ImageArray:
    """Return normalised images, `(IMAGES, 1, 28, 28)`."""
    train = data.get("fashion_mnist").search_splits().train
    pixels = torch.from_numpy(train.sample(IMAGES, 0).pixels[:])
    normalised: ImageArray = Preprocessing.of(train)(pixels).numpy()
    return normalised


def networks(space: str, number: int, seen: ImageArray) -> list[nn.Module]:
    """Return random networks of a space that answer what they see."""
    shape = {"input_shape": seen.shape[1:], "num_classes": 10}
    own = search_spaces.get(space, **shape, **SPACES[space])
    built: list[nn.Module] = []
    for genotype in own.samples(number, np.random.default_rng(0)).tolist():
        torch.manual_seed(0)
        network = own.build(genotype)
        recalibrate(network, [torch.from_numpy(seen)])
        built.append(network.eval())
    return built


def row(runtime: str, precision: str, network: nn.Module, seen: ImageArray) -> dict[str, Any]:
    """Run a network; return what it answers beside PyTorch, or what is said in place of it."""
    device = devices.get("cpu", runtime=runtime, precision=precision)
    with torch.no_grad():
        expected = network(torch.from_numpy(seen)).numpy()
    try:
        with tempfile.TemporaryDirectory() as folder:
            (file,) = device.prepare([network], seen.shape[1:], Path(folder), seen)
            (found,) = device.outputs(file, [seen])
            size_mb = file.size_mb
    except DeviceError as error:
        return {"said": str(error)}
    return {
        "deviation": float(np.abs(found - expected).max() / np.abs(expected).max()),
        "agreement": float((found.argmax(1) == expected.argmax(1)).mean()),
        "size_mb": size_mb,
    }


def cell(rows: pd.DataFrame) -> str:
    """Return what the table says of a space."""
    ran = rows[rows["deviation"].notna()]
    if not len(ran):
        return "refused"
    if rows["precision"].iloc[0] == "fp32":
        said = f"{ran['deviation'].max():.0e}"
    else:
        said = f"{ran['agreement'].mean():.0%}"
    return said if len(ran) == len(rows) else f"{said}, {len(ran)} of {len(rows)}"


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=5)
    number, file, seen = parser.parse_args().networks, HERE / "matrix.csv", images()
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=KEY)
    done = set(known[KEY].itertuples(index=False, name=None))
    for space in SPACES:
        for place, network in enumerate(networks(space, number, seen)):
            for name in runtimes.names():
                for precision in runtimes.component(name).precisions:
                    key = (name, precision, space, place)
                    if key not in done:
                        empty = {"deviation": None, "agreement": None, "size_mb": None, "said": ""}
                        found = row(name, precision, network, seen)
                        append_row(file, {**dict(zip(KEY, key, strict=True)), **empty, **found})
    rows = pd.read_csv(file)
    table = [
        {
            "runtime": name,
            "precision": precision,
            **{space: cell(own[own["space"] == space]) for space in SPACES},
        }
        for (name, precision), own in rows.groupby(["runtime", "precision"])
    ]
    text = markdown(pd.DataFrame(table))
    (HERE / "matrix.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
