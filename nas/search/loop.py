"""The search loop: ask, evaluate, record, tell.

The loop keeps `lookahead` candidates under way. Candidate `k` is proposed when the algorithm has
been told the trials `0 .. k - lookahead` and no others, whatever the order in which workers
finish. A search is therefore the same for any number of workers, and continuing one replays the
ledger: what was finished is told again and not evaluated again.

With a router, a proposed candidate may be refused before it is trained, and an ended trial's
latency may be measured before the algorithm is told. Both happen in the order of the numbers. What
is known of a candidate beforehand is taken when it is asked for: the predictor learns meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nas.core.errors import CandidateFailure, LedgerError
from nas.core.seeding import training_seed
from nas.core.space import Genotype
from nas.core.trial import Candidate, Evaluation, Evaluator, Outcome, SearchAlgorithm, Trial
from nas.search.problem import SearchProblem
from nas.search.routing import Router


class TrialRecord(Protocol):
    """Where the loop records trials; the ledger of `nas.results`."""

    def trials(self) -> list[Trial]:
        """Return all recorded trials."""

    def append(self, trial: Trial) -> None:
        """Record one trial durably."""


@dataclass(frozen=True)
class _Known:
    """What was known of a candidate when it was asked for."""

    values: Mapping[str, float]
    facts: Mapping[str, float]


@dataclass
class SearchLoop:
    """One search.

    Attributes:
        problem: What to search for.
        algorithm: Proposes genotypes.
        evaluator: Evaluates them.
        ledger: Records trials, and holds those of an earlier run of the same search.
        describe: Returns further columns of a candidate for the ledger.
        on_trial: Called with every trial, also with those that come from the ledger.
        study_seed: From which the seed of each training derives.
        evaluations: Trials at which the search ends.
        lookahead: Candidates under way at a time.
        router: Measures candidates whose prediction leaves a decision open; `None` for never.
    """

    problem: SearchProblem
    algorithm: SearchAlgorithm
    evaluator: Evaluator
    ledger: TrialRecord
    describe: Callable[[Genotype], Mapping[str, float]]
    on_trial: Callable[[Trial], None]
    study_seed: int
    evaluations: int
    lookahead: int
    router: Router | None = None
    _known: dict[int, _Known] = field(default_factory=dict, init=False)
    _judged: int = field(default=0, init=False)

    def run(self) -> list[Trial]:
        """Search until `evaluations` trials have ended or the space is exhausted.

        Returns:
            All trials by number, those of earlier runs included.

        Raises:
            LedgerError: The ledger holds another search's trials, or cannot be written.
        """
        recorded = {trial.number: trial for trial in self.ledger.trials()}
        ended: dict[int, Trial] = {}
        asked = 0
        exhausted = False
        while True:
            while not exhausted and asked < min(self.evaluations, len(ended) + self.lookahead):
                if not self._tell_before(asked, ended):
                    break
                genotype = self._ask(asked)
                exhausted = genotype is None
                if genotype is not None:
                    self._start(asked, genotype, recorded, ended)
                    asked += 1
            if len(ended) == asked:
                break
            for evaluation in self.evaluator.completed():
                self._finish(self._trial(evaluation), ended)
        self._judge(asked, ended)
        return [ended[number] for number in sorted(ended)]

    def _ask(self, number: int) -> Genotype | None:
        """Return the next candidate to train; `None` where the algorithm has no more."""
        while proposed := self.algorithm.ask(1):
            arch_id = self.problem.space.architecture(proposed[0]).arch_id
            if self.router is None or self.router.admit(number, proposed[0], arch_id):
                return proposed[0]
        return None

    def _judge(self, until: int, ended: dict[int, Trial]) -> None:
        """Let the router see the trials below number `until` that it has not seen yet."""
        while self.router is not None and self._judged < until:
            number = self._judged
            earlier = [ended[i] for i in range(number)]
            ended[number] = self.router.judge(ended[number], earlier)
            self._judged += 1

    def _tell_before(self, number: int, ended: dict[int, Trial]) -> bool:
        """Tell the one trial that must be known before candidate `number` is asked for."""
        due = number - self.lookahead
        if due < 0:
            return True
        if due not in ended:
            return False
        self._judge(due + 1, ended)
        self.algorithm.tell([ended[due]])
        return True

    def _start(
        self,
        number: int,
        genotype: Genotype,
        recorded: Mapping[int, Trial],
        ended: dict[int, Trial],
    ) -> None:
        arch_id = self.problem.space.architecture(genotype).arch_id
        earlier = recorded.get(number)
        if earlier is None:
            facts = dict(self.describe(genotype))
            if self.router is not None:
                facts |= self.router.facts(arch_id)
            self._known[number] = _Known(self.problem.known([genotype])[0], facts)
            seed = training_seed(self.study_seed, arch_id)
            self.evaluator.submit(
                [Candidate(number=number, genotype=genotype, arch_id=arch_id, seed=seed)]
            )
        elif earlier.arch_id == arch_id:
            ended[number] = earlier
            self.on_trial(earlier)
        else:
            raise LedgerError(
                f"ledger: trial {number} is architecture {earlier.arch_id}, expected {arch_id}; "
                "the settings of the search have changed, so give the study another name"
            )

    def _trial(self, evaluation: Evaluation) -> Trial:
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
            values=values,
            facts=facts,
            seconds=evaluation.seconds,
            failure=failure,
        )

    def _found(self, known: Mapping[str, float], outcome: Outcome) -> dict[str, float]:
        """Return the value of every objective, those that only a constraint names included."""
        values = dict(known)
        for name, objective in {**self.problem.limited, **self.problem.objectives}.items():
            if name not in values:
                values[name] = objective.after_training(outcome.metrics)
        return values

    def _finish(self, trial: Trial, ended: dict[int, Trial]) -> None:
        self.ledger.append(trial)
        ended[trial.number] = trial
        self.on_trial(trial)
