"""An evaluation that prepares an array of 10 MB once, which its jobs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.core.trial import Candidate, Job, Outcome
from nas.evaluation import register
from nas.evaluation.training import TrainingSettings

SIZE = 1_250_000


@dataclass(frozen=True)
class Lookup:
    """Answers with a number from the array, and whether it has a copy of its own."""

    numbers: npt.NDArray[np.float64] | None = None

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        assert self.numbers is not None
        copied = float(self.numbers.flags.writeable)  # the object store's memory is read-only
        value = self.numbers[candidate.seed % SIZE]
        return Outcome(metrics={"error": float(value), "copied": copied})


@register("prepared")
@dataclass(frozen=True, kw_only=True)
class PreparedSettings(TrainingSettings):
    def job(self, training: object) -> Job:
        return Lookup()

    def prepare(self, job: Job, folder: Path) -> Job:
        file = folder / "numbers.npy"
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            np.save(file, np.random.default_rng(0).uniform(0, 100, SIZE))
            with (folder / "made.txt").open("a") as made:
                made.write("once\n")
        return Lookup(np.load(file))
