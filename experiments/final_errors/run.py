"""Whether the networks that a study names are dominated by others that it verified.

Run `python experiments/final_errors/run.py [--source CHECKOUT] [--label NAME]`. For two data sets
and five seeds it searches, takes the `knee` and the `best` of the verified front, and asks whether
another verified network is at least as fast and better in test by more than the noise of the test
images. `--source` runs the code of another checkout, so that two versions are compared by the same
script. Rows go to `results.csv` beside this file, in place of those of the same label.

The data sets: the digits that come with scikit-learn (359 test images), and a folder of 1,500
images of Fashion-MNIST (600 test images), which is written here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from nas import data
from nas.core.images import Images

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SEEDS = range(5)
PICKS = ("knee", "best")
Z = 1.96
"""Standard errors that two test errors must differ by."""

SETTINGS = (
    "search_space.resolutions=[6,8,12,16]",
    "search_space.widths=[0.5,1.0,2.0]",
    "search_space.stage_channels=[16,32]",
    "search_space.stage_strides=[1,2]",
    "search_space.head_channels=64",
    "latency_predictor.samples=12",
    "latency_predictor.seconds_per_sample=0.2",
    "search.evaluations=24",
    "evaluation.recipe.epochs=2",
    "evaluation.recipe.shift=1",
    "finalise.recipe.epochs=15",
    "finalise.recipe.shift=1",
)
FOLDER_SETTINGS = (
    "data=image_folder",
    "data.grayscale=true",
    "data.test_share=0.4",
    "data.validation_share=0.2",
    "search_space.resolutions=[12,16,20,28]",
)
ASK = """
import json, sys
from pathlib import Path
from nas import results
study = results.open(Path(sys.argv[1]))
trials = study.trials()
rows = trials[trials["verified"]].drop_duplicates("arch_id")
picks = {name: study.pick(name)["arch_id"] for name in sys.argv[2:]}
columns = ["arch_id", "error_test", "latency_ms_measured"]
print(json.dumps({"picks": picks, "verified": rows[columns].to_dict("records")}))
"""
"""Asks a study of any version for its picks and its verified networks."""


def write_folder(path: Path, images_per_class: int = 150) -> None:
    """Write images of Fashion-MNIST as `path/CLASS/NUMBER.png`."""
    splits = data.get("fashion_mnist").search_splits()
    chosen: Images = splits.train.sample(images_per_class * len(splits.class_names), seed=0)
    for number, (pixels, label) in enumerate(zip(chosen.pixels, chosen.labels, strict=True)):
        folder = path / f"class_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0]).save(folder / f"{number:05}.png")


def dominating(picked: dict[str, Any], others: list[dict[str, Any]], images: int) -> str | None:
    """Return the network that is no slower and better in test by more than noise, if there is one.

    The noise is that of the difference of two shares of `images` images.
    """
    for other in sorted(others, key=lambda row: row["error_test"]):
        shares = [row["error_test"] / 100 for row in (picked, other)]
        noise = 100 * Z * math.sqrt(sum(s * (1 - s) for s in shares) / images)
        faster = other["latency_ms_measured"] <= picked["latency_ms_measured"]
        if faster and picked["error_test"] - other["error_test"] > noise:
            return str(other["arch_id"])
    return None


def study(source: Path, folder: Path, name: str, seed: int, settings: list[str]) -> dict[str, Any]:
    """Run a study with the code of `source`; return its picks and its verified networks."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    common: dict[str, Any] = {"cwd": folder, "env": environment, "check": True, "text": True}
    given = [f"name={name}", f"seed={seed}", *SETTINGS, *settings]
    command = [sys.executable, "-m", "nas.cli.main", "search", *given]
    subprocess.run(command, stdout=subprocess.DEVNULL, **common)
    asked = [sys.executable, "-c", ASK, f"runs/{name}", *PICKS]
    answer = subprocess.run(asked, stdout=subprocess.PIPE, **common)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def main() -> None:
    """Run all studies of one version and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT, help="checkout whose code is run")
    parser.add_argument("--label", default="after", help="of the version, in the results")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder / "images")
        data_sets: dict[str, tuple[int, list[str]]] = {
            "digits": (359, []),
            "image folder": (600, [*FOLDER_SETTINGS, f"data.path={folder / 'images'}"]),
        }
        for data_set, (images, settings) in data_sets.items():
            for seed in SEEDS:
                started = time.monotonic()
                found = study(options.source.resolve(), folder, f"{images}_{seed}", seed, settings)
                verified = {row["arch_id"]: row for row in found["verified"]}
                for pick, arch_id in found["picks"].items():
                    by = dominating(verified[arch_id], found["verified"], images)
                    best = min(row["error_test"] for row in found["verified"])
                    rows.append(
                        {
                            "version": options.label,
                            "data": data_set,
                            "seed": seed,
                            "pick": pick,
                            "error_test": verified[arch_id]["error_test"],
                            "least_error_test": best,
                            "verified": len(verified),
                            "dominated": by is not None,
                        }
                    )
                    print(rows[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    path = HERE / "results.csv"
    former = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(rows[0]))
    kept = former[former["version"] != options.label]
    every = pd.concat([kept, pd.DataFrame(rows)], ignore_index=True)
    every.to_csv(path, index=False, float_format="%.4g")
    every["dominated"] = every["dominated"].astype(bool)
    table = every.groupby(["version", "data", "pick"])["dominated"].agg(["sum", "count"])
    print(table.rename(columns={"sum": "dominated", "count": "studies"}))
    gap = every["error_test"].astype(float) - every["least_error_test"].astype(float)
    best = every[every["pick"] == "best"]
    print(gap[best.index].groupby(best["version"]).agg([np.mean, np.max]))


if __name__ == "__main__":
    main()
