"""Candidates under way: what was known of each when it was asked for, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.core.errors import CandidateFailure
from nas.core.trial import Candidate, Evaluation, Outcome, Trial
from nas.search.problem import SearchProblem


@dataclass(frozen=True)
class _Known:
    """What was known of a candidate when it was asked for."""

    values: Mapping[str, float]
    facts: Mapping[str, float]


@dataclass
class UnderWay:
    """The candidates that workers have.

    A predictor may learn while a candidate is trained; its trial holds what was predicted before.

    Attributes:
        problem: What is searched for.
    """

    problem: SearchProblem
    _known: dict[int, _Known] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, candidate: Candidate, facts: Mapping[str, float]) -> None:
        """Take note of a candidate and of further columns for its trial."""
        values = self.problem.known([candidate.genotype])[0]
        self._known[candidate.number] = _Known(values, facts)

    def ended(self, evaluation: Evaluation, ended_s: float) -> Trial:
        """Return the trial of a candidate that has ended, at `ended_s` of the search's clock."""
        candidate = evaluation.candidate
        known = self._known.pop(candidate.number)
        facts = dict(known.facts)
        values: dict[str, float] = {}
        failure = evaluation.failure
        if evaluation.outcome is not None:
            found = self._found(known.values, evaluation.outcome)
            not_finite = [f"{name} is {x}" for name, x in found.items() if not math.isfinite(x)]
            if not_finite:
                failure = str(CandidateFailure("diverged", ", ".join(not_finite)))
            else:
                values = {name: found[name] for name in self.problem.objectives}
                facts |= {o.column: found[name] for name, o in self.problem.limited.items()}
        return Trial(
            number=candidate.number,
            genotype=candidate.genotype,
            arch_id=candidate.arch_id,
            seed=candidate.seed,
            fidelity=candidate.fidelity,
            values=values,
            facts=facts,
            seconds=evaluation.seconds,
            ended_s=ended_s,
            failure=failure,
        )

    def _found(self, known: Mapping[str, float], outcome: Outcome) -> dict[str, float]:
        """Return the value of every objective, those that only a constraint names included."""
        values = dict(known)
        for name, objective in {**self.problem.limited, **self.problem.objectives}.items():
            if name not in values:
                values[name] = objective.after_training(outcome.metrics)
        return values
