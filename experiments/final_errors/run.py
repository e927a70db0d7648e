"""Whether the networks that a study names are dominated by others that it verified.

Run `python experiments/final_errors/run.py`. For two data sets and five seeds it searches and
finalises, then compares two rules on the same members of the same front:

- `search`: the rule of earlier releases. The front, its `knee` and its `best` follow from the
  errors of the search's short trainings; the members are trained on train and validation images
  together. They are trained so here, with the same seeds.
- `final`: the present rule. Members are trained on the train split, and the front, its `knee` and
  its `best` follow from their own validation errors.

A pick is dominated if another member is no larger and better in test by more than the noise of the
test images. Objectives are the error and the parameters, which are exact, so that no noise of a
latency plays a part. Rows go to `results.csv` and the tables to `tables.md`, beside this file.

The data sets: the digits that come with scikit-learn (359 test images), and a folder of 1,500
images of Fashion-MNIST (600 test images), which is written here.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown

from nas import data
from nas.cluster.connection import connected
from nas.core.seeding import training_seed
from nas.core.trial import Candidate
from nas.network.trained import Preprocessing
from nas.results.hypervolume import knee, non_dominated
from nas.study.composition import compose
from nas.study.reading import read
from nas.study.reporting import Reporter
from nas.study.run import run
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob

HERE = Path(__file__).resolve().parent
SEEDS = range(5)
PICKS = ("knee", "best")
Z = 1.96
"""Standard errors by which two test errors must differ."""

SETTINGS = (
    "search_space.resolutions=[6,8,12,16]",
    "search_space.widths=[0.5,1.0,2.0]",
    "search_space.stage_channels=[16,32]",
    "search_space.stage_strides=[1,2]",
    "search_space.head_channels=64",
    "device.min_seconds=0",
    "device.max_seconds_per_model=0.1",
    "search.objectives=[error,params_m]",
    "search.evaluations=32",
    "evaluation.recipe.epochs=4",
    "finalise.recipe.epochs=15",
)
FOLDER_SETTINGS = (
    "data=image_folder",
    "data.grayscale=true",
    "data.test_share=0.4",
    "data.validation_share=0.2",
    "search_space.resolutions=[12,16,20,28]",
)


def write_folder(path: Path, images: int = 1500) -> None:
    """Write images of Fashion-MNIST as `path/CLASS/NUMBER.png`."""
    chosen = data.get("fashion_mnist").search_splits().train.sample(images, seed=0)
    for number, (pixels, label) in enumerate(zip(chosen.pixels, chosen.targets, strict=True)):
        folder = path / f"class_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0]).save(folder / f"{number:05}.png")


def joint_test_errors(settings: StudySettings, members: pd.DataFrame) -> list[float]:
    """Return the test errors of members that are trained on train and validation images together.

    In percent, in the order of the rows of `members`.
    """
    splits = settings.data.search_splits()
    both = splits.train.joined(splits.validation)
    job = TrainingJob(
        space=settings.space(splits.input_shape, splits.task.output_size),
        train=both,
        held_out=settings.data.test_split(),
        preprocessing=Preprocessing.of(both),
        recipe=settings.finalise.recipe,
        threads=settings.evaluation.threads,
    )
    candidates = [
        Candidate(
            number=number,
            genotype=row["genotype"],
            arch_id=row["arch_id"],
            seed=training_seed(settings.seed, row["arch_id"]),
        )
        for number, (_, row) in enumerate(members.iterrows())
    ]
    errors = {}
    with closing(settings.evaluation.start(job, limited=False)) as evaluator:
        evaluator.submit(candidates)
        while evaluations := evaluator.completed():
            for evaluation in evaluations:
                assert evaluation.outcome is not None, evaluation.failure
                errors[evaluation.candidate.number] = evaluation.outcome.metrics["error"]
    return [errors[number] for number in range(len(candidates))]


def picked(errors: np.ndarray, params: np.ndarray) -> dict[str, int]:
    """Return the positions of the picks of the front of errors and parameters."""
    points = np.column_stack([errors, params])
    front = np.flatnonzero(non_dominated(points))
    best = front[errors[front].argmin()]
    return {"knee": int(front[knee(points[front])]), "best": int(best)}


def dominated(pick: int, test: np.ndarray, params: np.ndarray, images: int) -> bool:
    """Return whether another member is no larger, and better in test by more than noise.

    The noise is that of the difference of two shares of `images` images.
    """
    shares = test / 100
    variance = shares * (1 - shares) / images
    noise = 100 * Z * np.sqrt(variance + variance[pick])
    return bool(((params <= params[pick]) & (test[pick] - test > noise)).any())


def rows_of(settings: StudySettings, members: pd.DataFrame, images: int) -> list[dict[str, object]]:
    """Return a row for each rule and pick of one finished study."""
    params = members["params_m"].to_numpy()
    rules = {
        "search": (members["error"], np.array(joint_test_errors(settings, members))),
        "final": (members["error_final"], members["error_test"].to_numpy()),
    }
    rows: list[dict[str, object]] = []
    for rule, (errors, test) in rules.items():
        for name, pick in picked(errors.to_numpy(), params).items():
            rows.append(
                {
                    "rule": rule,
                    "seed": settings.seed,
                    "pick": name,
                    "members": len(members),
                    "error_seen": errors.iloc[pick],
                    "error_test": test[pick],
                    "least_error_test": test.min(),
                    "dominated": dominated(pick, test, params, images),
                }
            )
    return rows


def studies(folder: Path, name: str, given: Sequence[str]) -> list[dict[str, object]]:
    """Run the studies of one data set."""
    rows = []
    for seed in SEEDS:
        overrides = [f"name={name}{seed}", f"seed={seed}", f"runs={folder}", *SETTINGS, *given]
        settings = read(compose(overrides))
        study = run(settings, Reporter())
        members = study.trials().query("verified").drop_duplicates("arch_id")
        images = len(settings.data.test_split())
        found = rows_of(settings, members, images)
        rows += [{"data": name, "images": images, **row} for row in found]
        for row in found:
            print(name, row, flush=True)
    return rows


def tables(rows: pd.DataFrame) -> str:
    """Return how often picks are dominated, and how far seen and true errors lie apart."""
    rows = rows.assign(apart=(rows["error_seen"] - rows["error_test"]).abs())
    rows = rows.assign(behind=rows["error_test"] - rows["least_error_test"])
    grouped = rows.groupby(["data", "pick", "rule"], sort=False)
    table = grouped.agg(
        studies=("seed", "count"),
        dominated=("dominated", "sum"),
        error_test=("error_test", "mean"),
        behind_the_least=("behind", "mean"),
        shown_minus_test=("apart", "mean"),
    )
    return markdown(table.reset_index().round(2)) + "\n"


def main() -> None:
    """Run all studies and write their rows."""
    with (
        tempfile.TemporaryDirectory() as name,
        connected(None),
    ):
        folder = Path(name)
        write_folder(folder / "images")
        rows = studies(folder / "runs", "digits", ())
        of_folder = (*FOLDER_SETTINGS, f"data.path={folder / 'images'}")
        rows += studies(folder / "runs", "folder", of_folder)
    frame = pd.DataFrame(rows)
    frame.to_csv(HERE / "results.csv", index=False, float_format="%.4g")
    (HERE / "tables.md").write_text(tables(frame), "utf-8")
    print(tables(frame))


if __name__ == "__main__":
    main()
