"""What a small network gains from a larger network of its space as a teacher.

Run `python experiments/training/distillation.py [--seeds N]`. One teacher is trained on all images
of the train split of Fashion-MNIST; for every seed students are trained on 20,000 of them by the
same recipe without and with it, and judged on the validation split. Rows go to `distillation.csv`,
the table to `distillation.md`, and the gains, with their 95 % interval over seeds, are printed.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import pandas as pd
from networks import FUSED, SMALL, VIT, many_images
from scipy import stats
from trainings import Run, write_table

STUDENTS = {"MobileNet": (SMALL, "convolution"), "transformer": (VIT, "transformer")}
EPOCHS, IMAGES = 8, 20_000
TEACHERS: dict[str, dict[str, Any]] = {
    "no teacher": {},
    "temperature 4, half": {"teacher": {"source": "space:largest"}},
}


TEACHER = Run(
    name="teacher",
    network=FUSED,
    recipe=many_images("convolution", epochs=12),
    seed=0,
    keep_weights=True,
)


def students(seed: int) -> list[Run]:
    """Return the trainings of the students of a seed."""
    return [
        Run(
            name=f"{student}, {name}",
            network=network,
            recipe=many_images(family, epochs=EPOCHS, train_samples=IMAGES, **changes),
            seed=seed,
            teacher=TEACHER if changes else None,
        )
        for student, (network, family) in STUDENTS.items()
        for name, changes in TEACHERS.items()
    ]


def gains(found: pd.DataFrame) -> pd.DataFrame:
    """Return what every teacher gains over none, in points, with half of the 95 % interval."""
    errors = found.pivot_table(index="seed", columns="name", values="error")
    table = []
    for student in STUDENTS:
        for name in list(TEACHERS)[1:]:
            gain = errors[f"{student}, no teacher"] - errors[f"{student}, {name}"]
            half = stats.t.ppf(0.975, len(gain) - 1) * gain.std() / math.sqrt(len(gain))
            table.append({"student": student, "teacher": name, "gain": gain.mean(), "±": half})
    return pd.DataFrame(table).round(2)


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    write_table([TEACHER], "distillation")
    found = write_table([TEACHER, *(run for s in seeds for run in students(s))], "distillation")
    print(gains(found).to_string(index=False))


if __name__ == "__main__":
    main()
