"""The search loop: ask, evaluate, record, tell.

A schedule says when a candidate's turn has come, and in which order trials are told. Continuing a
search replays the ledger: the algorithm is asked and told as before, and what was finished is not
evaluated again.

With adaptive measurement, a proposed candidate may be refused before it is trained, and an ended
trial's latency may be measured before the algorithm is told. Both happen in the order of asking and
telling. What is refused takes no number, and is not pending when the algorithm is asked again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nas.core.errors import CandidateFailure, LedgerError
from nas.core.host import one_thread
from nas.core.seeding import training_seed
from nas.core.space import Genotype
from nas.core.trial import Candidate, Evaluation, Evaluator, Outcome, SearchAlgorithm, Trial
from nas.search.adaptive_measurement import AdaptiveMeasurement
from nas.search.fidelity import FidelityRule, FullTraining, Proposal
from nas.search.problem import SearchProblem
from nas.search.schedule import Schedule, SegmentRecord
from nas.search.stopping import EXHAUSTED, Stop, Stopping


class TrialRecord(SegmentRecord, Protocol):
    """Where the loop records trials; the ledger of `nas.results`."""

    def trials(self) -> list[Trial]:
        """Return all recorded trials."""

    def append(self, trial: Trial) -> None:
        """Record one trial durably."""


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
        stopping: When the search ends.
        schedule: When a candidate is asked for.
        adaptive_measurement: Measures candidates whose prediction leaves a decision open; `None`
            for never.
        fidelity: Says how far candidates are trained.
        stop: Why the search has ended; `None` until then.
    """

    problem: SearchProblem
    algorithm: SearchAlgorithm
    evaluator: Evaluator
    ledger: TrialRecord
    describe: Callable[[Genotype], Mapping[str, float]]
    on_trial: Callable[[Trial], None]
    study_seed: int
    stopping: Stopping
    schedule: Schedule
    adaptive_measurement: AdaptiveMeasurement | None = None
    fidelity: FidelityRule = field(default_factory=FullTraining)
    stop: Stop | None = field(default=None, init=False)
    _reached: dict[str, float] = field(default_factory=dict, init=False)
    _recorded: dict[int, Trial] = field(default_factory=dict, init=False)
    _waiting: dict[int, Trial] = field(default_factory=dict, init=False)
    _told: list[Trial] = field(default_factory=list, init=False)
    _told_least: int = field(default=0, init=False)
    _pending: PendingTrials = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no candidate."""
        self._pending = PendingTrials(self.problem)

    @one_thread()
    def run(self) -> list[Trial]:
        """Search until a limit is reached or the space is exhausted, and no candidate is running.

        This process keeps to one thread meanwhile: the other cores are the workers'.

        Returns:
            All trials by number, those of earlier runs included.

        Raises:
            LedgerError: The ledger holds another search's trials, or cannot be written.
        """
        recorded = self.ledger.trials()
        self._recorded = {trial.number: trial for trial in recorded}
        self.stopping.note(recorded)
        self.schedule.begin(self.ledger, recorded)
        clock = _SearchClock(self.evaluator, recorded)
        asked = 0
        while True:
            while self._limit(asked) is None and self._tell_before(asked):
                proposal = self._propose(asked)
                if proposal is None:
                    # Only what is told may change that: a further trial must end before.
                    self._told_least = len(self._told) + 1
                else:
                    self._start(asked, proposal)
                    asked += 1
            if not self._pending.running:
                break
            self._receive(self.evaluator.completed(), clock)
        self.stop = self._limit(asked) or EXHAUSTED
        while trials := self.schedule.following(len(self._told), self._waiting):
            self._tell(trials)
        return sorted(self._told, key=lambda trial: trial.number)

    def _limit(self, asked: int) -> Stop | None:
        """Return the limit that is reached; what is recorded is replayed whatever it took."""
        trainings = math.fsum(self._reached.values())
        if asked <= max(self._recorded, default=-1):
            return self.stopping.enough(trainings)
        return self.stopping.reached(trainings)

    def _propose(self, number: int) -> Proposal | None:
        """Return what to train next; `None` where neither rule nor algorithm has anything."""
        promoted = self.fidelity.promotion()
        if promoted is not None:
            return promoted
        measuring = self.adaptive_measurement
        while proposed := self.algorithm.ask(1, self._pending.candidates):
            [genotype] = proposed
            arch_id = self.problem.space.architecture(genotype).arch_id
            if measuring is None or measuring.admit(number, genotype, arch_id):
                return Proposal(genotype, self.fidelity.enter(genotype))
        return self.fidelity.promotion(exhausted=True)

    def _tell_before(self, number: int) -> bool:
        """Tell what must be known before candidate `number`; `False` if some has not ended."""
        while len(self._told) < max(self.schedule.due(number), self._told_least):
            trials = self.schedule.following(len(self._told), self._waiting)
            if not trials:
                return False
            self._tell(trials)
        return True

    def _tell(self, trials: Sequence[Trial]) -> None:
        """Tell trials, after those have been measured that need it."""
        measuring = self.adaptive_measurement
        for trial in trials:
            del self._waiting[trial.number]
            self._pending.told(trial.number)
            self._told.append(trial if measuring is None else measuring.judge(trial, self._told))
        told = self._told[-len(trials) :]
        self.fidelity.tell(told)
        # The value of a partial training misleads whoever takes it for that of a full one.
        partial_too = self.algorithm.multi_fidelity
        self.algorithm.tell([t for t in told if partial_too or t.full or not t.complete])

    def _start(self, number: int, proposal: Proposal) -> None:
        """Have a candidate evaluated, or recall its trial."""
        genotype, fidelity = proposal.genotype, proposal.fidelity
        arch_id = self.problem.space.architecture(genotype).arch_id
        self._reached[arch_id] = fidelity
        candidate = Candidate(
            number=number,
            genotype=genotype,
            arch_id=arch_id,
            seed=training_seed(self.study_seed, arch_id),
            fidelity=fidelity,
        )
        earlier = self._recorded.get(number)
        if earlier is None:
            facts = dict(self.describe(genotype))
            if self.adaptive_measurement is not None:
                facts |= self.adaptive_measurement.facts(arch_id)
            self._pending.run(candidate, facts)
            self.evaluator.submit([candidate])
        elif (earlier.arch_id, earlier.fidelity) == (arch_id, fidelity):
            self._pending.recall(candidate)
            self._waiting[number] = earlier
            self.on_trial(earlier)
        else:
            raise LedgerError(
                f"ledger: trial {number} is architecture {earlier.arch_id} at fidelity "
                f"{earlier.fidelity:g}, expected {arch_id} at {fidelity:g}; "
                "the settings of the search or the code of its space have changed; "
                "give the study another name"
            )

    def _receive(self, evaluations: Sequence[Evaluation], clock: _SearchClock) -> None:
        """Record what has ended; what is reported together ended at the same time."""
        ended_s = clock.next_s()
        for evaluation in evaluations:
            trial = self._pending.ended(evaluation, ended_s)
            self.ledger.append(trial)
            self._waiting[trial.number] = trial
            self.stopping.note([trial])
            self.on_trial(trial)


@dataclass(frozen=True)
class _BeforeTraining:
    """What was known of a candidate when it was asked for."""

    values: Mapping[str, float]
    facts: Mapping[str, float]


@dataclass
class PendingTrials:
    """The candidates that were asked for and whose trials have not been told.

    A predictor may learn while a candidate is trained; its trial holds what was predicted when it
    was asked for.

    Attributes:
        problem: What is searched for.
    """

    problem: SearchProblem
    _candidates: dict[int, Candidate] = field(default_factory=dict, init=False)
    _running: dict[int, _BeforeTraining] = field(default_factory=dict, init=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All of them, in the order in which they were asked for."""
        return tuple(self._candidates.values())

    @property
    def running(self) -> bool:
        """Whether the evaluator has any."""
        return bool(self._running)

    def run(self, candidate: Candidate, facts: Mapping[str, float]) -> None:
        """Take note of a candidate that the evaluator gets, and of columns for its trial."""
        self.recall(candidate)
        values = self.problem.known([candidate.genotype])[0]
        self._running[candidate.number] = _BeforeTraining(values, facts)

    def recall(self, candidate: Candidate) -> None:
        """Take note of a candidate whose trial the ledger holds."""
        self._candidates[candidate.number] = candidate

    def told(self, number: int) -> None:
        """Take note that the algorithm knows the trial of a candidate."""
        del self._candidates[number]

    def ended(self, evaluation: Evaluation, ended_s: float) -> Trial:
        """Return the trial of a candidate that has ended, at `ended_s` of the search's clock."""
        candidate = evaluation.candidate
        known = self._running.pop(candidate.number)
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


class _SearchClock:
    """Seconds that a search has run, all its runs together."""

    def __init__(self, evaluator: Evaluator, recorded: Sequence[Trial]) -> None:
        """Go on from the last recorded trial; what came after it is lost with its results."""
        self._evaluator = evaluator
        self._last_s = max((trial.ended_s for trial in recorded), default=0.0)
        self._zero_s = evaluator.clock() - self._last_s

    def next_s(self) -> float:
        """Return the time, later than any before, so that it tells the order of events."""
        after_s = math.nextafter(self._last_s, math.inf)
        self._last_s = max(after_s, self._evaluator.clock() - self._zero_s)
        return self._last_s
