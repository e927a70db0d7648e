"""Relaxed trainings on the study's workers; what they find is kept in the study's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import HwnasError, counted
from nas.core.files import hashed, write_json_atomically
from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.records import decoding, read_json
from nas.core.relaxation import Goal
from nas.core.space import Genotype
from nas.core.trial import Candidate, Evaluation, Evaluator, Job
from nas.network.blocks import IntArray
from nas.training.relaxed import RelaxedJob


@dataclass(frozen=True)
class KnownCost:
    """An objective that is known before training, as a worker knows it.

    Attributes:
        objective: The objective.
        facts: What it follows from.
    """

    objective: Objective
    facts: Facts

    def __call__(self, genotypes: IntArray) -> FloatArray:
        """Return the values of canonical genotypes, shape `(n,)`."""
        rows = [tuple(row) for row in genotypes.tolist()]
        values = self.objective.before_training(rows, self.facts)
        assert values is not None, "the objective is known before training"
        return np.maximum(values, np.finfo(float).tiny)


@dataclass
class Relaxation:
    """Runs relaxed trainings.

    Attributes:
        job: Without goals.
        start: Starts workers for a job.
        file: Keeps what was found.
        left_s: Returns how many seconds of search are left.
        say: Called with a line for people about each.
    """

    job: RelaxedJob
    start: Callable[[Job], Evaluator]
    file: Path
    left_s: Callable[[], float]
    say: Callable[[str], None]

    def __call__(self, goals: Sequence[Goal]) -> list[Genotype | None]:
        """Return what is found for goals, `None` for one whose training failed.

        These are the first goals only, where time is up before the others.

        Raises:
            HwnasError: All trainings failed.
        """
        kept = self._kept()
        missing = tuple(goal for goal in goals if self._key(goal) not in kept)
        if missing and self.left_s() > 0:
            self._train(missing, kept)
        found = []
        for goal in goals:
            row = kept.get(self._key(goal))
            if row is None:
                break
            found.append(None if row["genotype"] is None else tuple(row["genotype"]))
        if found and not any(found):
            failure = kept[self._key(goals[0])]["failure"]
            raise HwnasError(f"no relaxed network could be trained ({failure})")
        return found

    def seconds(self) -> float:
        """Return how long workers have trained relaxed networks."""
        return sum(float(row["seconds"]) for row in self._kept().values())

    def _train(self, goals: tuple[Goal, ...], kept: dict[str, dict[str, Any]]) -> None:
        each = counted(self.job.settings.epochs, "epoch")
        of = f"{len(goals)}, each for {each}"
        self.say(f"relaxed networks are trained: {of}; their time is not in the plan")
        genotype = self.job.space.canonical([0] * len(self.job.space.genes))
        evaluator = self.start(dataclasses.replace(self.job, goals=goals))
        with closing(evaluator):
            evaluator.end_at(evaluator.clock() + self.left_s())
            evaluator.submit(
                [
                    Candidate(number=n, genotype=genotype, arch_id=f"goal{n}", seed=goal.seed)
                    for n, goal in enumerate(goals)
                ]
            )
            while ended := evaluator.completed():
                for evaluation in ended:
                    outcome = evaluation.outcome
                    if outcome is None or outcome.cut_at is None:
                        goal = goals[evaluation.candidate.number]
                        row = kept[self._key(goal)] = _row(evaluation)
                        self.file.parent.mkdir(parents=True, exist_ok=True)
                        write_json_atomically(self.file, {"found": kept})
                        self.say(self._line(goal, row))

    def _line(self, goal: Goal, row: dict[str, Any]) -> str:
        unit = self.job.unit
        target = f"  target {goal.target:.4g} {unit}"
        if row["genotype"] is None:
            return f"{target}: {row['failure']}"
        arch_id = self.job.space.architecture(row["genotype"]).arch_id
        certain = f"choices {100 * row['certainty']:.0f} % certain"
        took = f"in {row['seconds']:.0f} s"
        return f"{target}: {arch_id} of {row['cost']:.4g} {unit}, {certain}, {took}"

    def _key(self, goal: Goal) -> str:
        return hashed([goal, self.job.recipe, self.job.settings], 16)

    def _kept(self) -> dict[str, dict[str, Any]]:
        if not self.file.is_file():
            return {}
        fix = f"delete {self.file} and run the same command again"
        with decoding(self.file, fix):
            found: dict[str, dict[str, Any]] = read_json(self.file, {"found": dict}, fix)["found"]
            for row in found.values():
                float(row["seconds"])
                if row["genotype"] is not None:
                    self.job.space.check(row["genotype"])
            return found


def _row(evaluation: Evaluation) -> dict[str, Any]:
    row: dict[str, Any] = {"seconds": evaluation.seconds, "failure": evaluation.failure}
    details = {} if evaluation.outcome is None else evaluation.outcome.details
    return {**row, "genotype": None, **details}
