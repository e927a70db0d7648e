"""Whether a study keeps its budget: one `nas search budget=15min` on a folder of 6,000 images.

Run `python experiments/budget/run.py` after `make data`, on two cores that do nothing else; with
`--beside`, another process keeps one core busy meanwhile. The images, of 32 by 32 pixels, are made
of Fashion-MNIST; they and the studies stay in `runs/` beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from nas import data, results
from nas.core.files import write_json_atomically
from nas.devices.measuring.environment import describe_host
from nas.study.record import versions

HERE = Path(__file__).resolve().parent
RUNS = HERE / "runs"
IMAGES = 6_000
SIDE = 32


def make_images(folder: Path) -> None:
    """Write the first images of Fashion-MNIST as PNG files, one sub-folder a class."""
    if folder.is_dir():
        return
    train = data.get("fashion_mnist").search_splits().train
    part = folder.with_suffix(".part")
    for number in range(IMAGES):
        pixels = Image.fromarray(train.pixels[number, 0]).resize((SIDE, SIDE))
        file = part / str(train.targets[number]) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(file)
    part.rename(folder)


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy for the time of a `with` block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Run one study and say what its stages took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", action="store_true", help="keep one core busy meanwhile")
    parser.add_argument("--budget", default="15min")
    parser.add_argument("settings", nargs="*", help="further settings of the search")
    parsed = parser.parse_args()
    make_images(RUNS / "images")
    name = f"{parsed.budget}{'-beside' if parsed.beside else ''}-{time.strftime('%Y%m%d-%H%M%S')}"
    command = [sys.executable, "-m", "nas.cli.main", "search", "data=image_folder"]
    command += [f"data.path={RUNS / 'images'}", f"data.image_size={SIDE}"]
    command += [f"budget={parsed.budget}", f"name={name}", f"runs={RUNS}", *parsed.settings]
    # What was measured for another study would make the calibration of this one shorter.
    command.append(f"measurements={RUNS / name / 'measurements'}")
    with busy_core() if parsed.beside else contextlib.nullcontext():
        began = time.monotonic()
        subprocess.run(command, check=True)
        took_s = time.monotonic() - began
    study = results.open_study(name, RUNS)
    trials, front = study.trials(), study.pareto()
    found = {
        "budget": parsed.budget,
        "beside": parsed.beside,
        "took_s": took_s,
        "stages": study.record["stages"],
        "trials": len(trials),
        "full_trainings": int(np.sum(trials["fidelity"] == 1)),
        "verified": int(trials["verified"].sum()),
        "front": len(front),
        "best_test_error_percent": float(front["error_test"].min()),
        "host": describe_host(),
        "versions": versions(),
    }
    write_json_atomically(HERE / f"results-{name}.json", found)
    print(f"{took_s / 60:.1f} min of {parsed.budget}, {found['verified']} networks verified")
    for stage, seconds in found["stages"].items():
        planned = seconds["planned_s"]
        said = "" if planned is None else f", planned {planned:.0f} s"
        print(f"{stage}: {seconds['took_s']:.0f} s{said}")


if __name__ == "__main__":
    main()
