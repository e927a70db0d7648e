"""How accurate latency predictors are on the measurements that `NAME_networks.csv` hold.

    python experiments/latency_predictors/stored.py                       # the code as it is
    python experiments/latency_predictors/stored.py vit --before 496fdc6  # and of another commit

Nothing is measured: each predictor is fitted to the 100 networks of the stored calibration and
predicts the 200 fresh ones and the 50 near the front. So two
versions of the code are compared without the noise of a machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import latency_predictors
import search_spaces

HERE = Path(__file__).resolve().parent

# Not from `_shared`, because the script also runs with the packages of other commits.
SPACES = {"mobilenet": (3, 64, 64), "vit": (3, 64, 64), "darts": (3, 32, 32)}
PREDICTORS = ("kernels", "block_table", "gaussian_process", "ridge", "macs")
FITTED = "calibration"
TESTED = ("held out", "near the front")


def evaluate(name: str, predictor: str) -> dict[str, object]:
    """Return the scores of one predictor on the networks of one space."""
    space = search_spaces.get(name, input_shape=SPACES[name], num_classes=10)
    networks = pd.read_csv(HERE / f"{name}_networks.csv")
    genotypes = [tuple(int(gene) for gene in text.split()) for text in networks["genotype"]]
    measured_ms = networks["latency_ms_measured"].to_numpy()
    fitted = np.flatnonzero(networks["part"] == FITTED)
    started = time.process_time()
    settings = latency_predictors.get(predictor)
    model = settings.fit(space, [genotypes[i] for i in fitted], measured_ms[fitted])
    seconds = time.process_time() - started
    prediction = model.predict(genotypes)
    low, high = prediction.interval_ms(0.9)
    row: dict[str, object] = {"space": name, "predictor": predictor}
    for part in TESTED:
        chosen = (networks["part"] == part).to_numpy()
        errors = 100 * np.abs(prediction.mean_ms / measured_ms - 1)[chosen]
        row[f"within 5 %, {part}"] = 100 * np.mean(errors <= 5)
        row[f"within 10 %, {part}"] = 100 * np.mean(errors <= 10)
        row[f"median error %, {part}"] = np.median(errors)
        row[f"90 % intervals cover, {part}"] = 100 * np.mean(
            ((low <= measured_ms) & (measured_ms <= high))[chosen]
        )
    return row | {"CPU seconds of fitting": seconds}


def main() -> None:
    """Print a table for the code as it is and, if asked for, one for another commit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("spaces", nargs="*", help="default: all")
    parser.add_argument("--predictors", nargs="+", default=PREDICTORS)
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare with")
    given = parser.parse_args()
    spaces = given.spaces or list(SPACES)
    if given.before:
        with tempfile.TemporaryDirectory() as folder:
            tree = subprocess.run(
                ["git", "archive", given.before, "latency_predictors", "nas", "search_spaces"],
                cwd=HERE.parents[1],
                check=True,
                capture_output=True,
            ).stdout
            subprocess.run(["tar", "-x", "-C", folder], input=tree, check=True)
            print(f"commit {given.before}", flush=True)
            command = [sys.executable, __file__, *spaces, "--predictors", *given.predictors]
            subprocess.run(command, env=os.environ | {"PYTHONPATH": folder}, check=True)
    rows = [evaluate(space, predictor) for space in spaces for predictor in given.predictors]
    print(f"code in {Path(latency_predictors.__file__).parents[1]}")
    print(pd.DataFrame(rows).round(2).T.to_string(header=False))


if __name__ == "__main__":
    main()
