"""The search loop: ask, evaluate, record, tell.

A schedule says when a candidate's turn has come, and in which order trials are told. Continuing a
search replays the ledger: the algorithm is asked and told as before, and what was finished is not
evaluated again.

With adaptive measurement, a proposed candidate may be refused before it is trained, and an ended
trial's latency may be measured before the algorithm is told. Both happen in the order of asking and
telling. What is refused takes no number, and is not pending when the algorithm is asked again.

What runs when time is up is cut and recorded as a partial training, whose time counts. Where limits
then leave room, it goes on from its checkpoint, as the next candidate after its trial was told.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nas.core.errors import CandidateFailure, LedgerError
from nas.core.host import one_thread
from nas.core.seeding import training_seed
from nas.core.space import Architecture, Genotype
from nas.core.trial import Candidate, Evaluation, Evaluator, History, SearchAlgorithm, Trial
from nas.search.adaptive_measurement import AdaptiveMeasurement
from nas.search.fidelity import FidelityRule, Proposal
from nas.search.parents import PARENT, Parents
from nas.search.problem import SearchProblem
from nas.search.schedule import Schedule, TrialRecord
from nas.search.stopping import BY_TIME, EXHAUSTED, Stop, Stopping

SUBMIT_S = 0.1
"""Seconds for which a candidate is kept back, to be looked at and submitted with others."""


@dataclass
class SearchLoop:
    """One search.

    Attributes:
        problem: What to search for.
        algorithm: Proposes genotypes.
        evaluator: Evaluates them.
        ledger: Records trials, and holds those of an earlier run of the same search.
        describe: Returns further columns of candidates of the problem for the ledger.
        on_trial: Called with every trial and the history of its training; with `None` for that of
            trials that come from the ledger.
        study_seed: From which the seed of each training derives.
        stopping: When the search ends.
        schedule: When a candidate is asked for.
        adaptive_measurement: Measures candidates whose prediction leaves a decision open; `None`
            for never.
        fidelity: Says how far candidates are trained.
        parents: Chooses whose weights candidates begin with; `None` for initial weights.
        stop: Why the search has ended; `None` until then.
    """

    problem: SearchProblem
    algorithm: SearchAlgorithm
    evaluator: Evaluator
    ledger: TrialRecord
    describe: Callable[[SearchProblem, Sequence[Genotype]], Sequence[Mapping[str, float]]]
    on_trial: Callable[[Trial, History | None], None]
    study_seed: int
    stopping: Stopping
    schedule: Schedule
    adaptive_measurement: AdaptiveMeasurement | None = None
    fidelity: FidelityRule = field(default_factory=FidelityRule)
    parents: Parents | None = None
    stop: Stop | None = field(default=None, init=False)
    _reached: dict[str, float] = field(default_factory=dict, init=False)
    # How many architectures have reached each fidelity: a sum over all takes longer at every trial.
    _at_fidelity: Counter[float] = field(default_factory=Counter, init=False)
    _recorded: dict[int, Trial] = field(default_factory=dict, init=False)
    _last_recorded: int = field(default=-1, init=False)
    _waiting: dict[int, Trial] = field(default_factory=dict, init=False)
    _told: list[Trial] = field(default_factory=list, init=False)
    _told_least: int = field(default=0, init=False)
    # Asked for and not told, in the order in which they were asked for.
    _pending: dict[int, Candidate] = field(default_factory=dict, init=False)
    # Not submitted yet, and when the first of them was asked for.
    _starting: list[Candidate] = field(default_factory=list, init=False)
    _starting_since_s: float = field(default=0.0, init=False)
    # Whose training was cut and has been told.
    _cut: deque[Proposal] = field(default_factory=deque, init=False)
    # At the evaluator, with what is known before training: a predictor may learn meanwhile.
    _running: dict[int, Trial] = field(default_factory=dict, init=False)
    _now_s: float = field(default=0.0, init=False)
    _zero_s: float = field(default=0.0, init=False)

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
        self._last_recorded = max(self._recorded, default=-1)
        self.stopping.note(recorded)
        self.schedule.begin(self.ledger, recorded)
        # What came after the last recorded trial is lost with its results.
        self._now_s = max((trial.ended_s for trial in recorded), default=0.0)
        self._zero_s = self.evaluator.clock() - self._now_s
        self.evaluator.end_at(self._zero_s + self.stopping.ends_s)
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
            self._submit()
            evaluations = self.evaluator.completed()
            if not evaluations:
                break
            self._receive(evaluations)
        # What has not been begun when time is up does not come back.
        late = self.stopping.out_of_time() if self._running else EXHAUSTED
        self.stop = self._limit(asked) or late
        if self.stop.by in BY_TIME:
            self.adaptive_measurement = None
        while trials := self.schedule.following(len(self._told), self._waiting):
            self._tell(trials)
        return sorted(self._told, key=lambda trial: trial.number)

    def _limit(self, asked: int) -> Stop | None:
        """Return the limit that is reached; what is recorded is replayed whatever it took."""
        trainings = math.fsum(share * n for share, n in self._at_fidelity.items())
        if asked <= self._last_recorded:
            return self.stopping.enough(trainings)
        return self.stopping.reached(trainings)

    def _propose(self, number: int) -> Proposal | None:
        """Return what to train next; `None` where neither rule nor algorithm has anything."""
        if self._cut:
            return self._cut.popleft()
        promoted = self.fidelity.promotion()
        if promoted is not None:
            return promoted
        measuring = self.adaptive_measurement
        while proposed := self.algorithm.ask(1, tuple(self._pending.values())):
            [genotype] = proposed
            if measuring is None or measuring.admit(number, genotype, self._arch_id(genotype)):
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
            candidate = self._pending.pop(trial.number)
            if trial.cut:
                self._cut.append(Proposal(trial.genotype, candidate.fidelity))
            self._told.append(trial if measuring is None else measuring.judge(trial, self._told))
        told = self._told[-len(trials) :]
        self.fidelity.tell([trial for trial in told if not trial.cut])
        # The value of a partial training misleads whoever takes it for that of a full one.
        partial_too = self.algorithm.multi_fidelity
        self.algorithm.tell([t for t in told if partial_too or t.full or not t.complete])

    def _start(self, number: int, proposal: Proposal) -> None:
        """Have a candidate evaluated, or recall its trial."""
        genotype, fidelity = proposal.genotype, proposal.fidelity
        arch_id = self._arch_id(genotype)
        self._reach(arch_id, fidelity)
        candidate = Candidate(
            number=number,
            genotype=genotype,
            arch_id=arch_id,
            seed=training_seed(self.study_seed, arch_id),
            fidelity=fidelity,
        )
        self._pending[number] = candidate
        earlier = self._recorded.get(number)
        if earlier is None:
            if self.parents is not None:
                candidate = self.parents.with_parent(candidate, self._told, self._pending)
            if not self._starting:
                self._starting_since_s = time.monotonic()
            self._starting.append(candidate)
            # A predictor may learn from the next one. Its sums also depend, in their last digit, on
            # how many are predicted at once, and the clock must not decide that.
            alone = self.problem.facts.predictor is not None
            if alone or time.monotonic() - self._starting_since_s > SUBMIT_S:
                self._submit()
        elif earlier.arch_id == arch_id and (
            earlier.fidelity < fidelity if earlier.cut else earlier.fidelity == fidelity
        ):
            self._ended(earlier)
        else:
            raise LedgerError(
                f"ledger: trial {number} is architecture {earlier.arch_id} at fidelity "
                f"{earlier.fidelity:g}, expected {arch_id} at {fidelity:g}; "
                "the settings of the search or the code of its space have changed; "
                "give the study another name"
            )

    def _reach(self, arch_id: str, fidelity: float) -> None:
        """Take note of the fidelity that an architecture has, or will have if it is not cut."""
        self._at_fidelity[fidelity] += 1
        if arch_id in self._reached:
            self._at_fidelity[self._reached[arch_id]] -= 1
        self._reached[arch_id] = fidelity

    def _submit(self) -> None:
        """Submit the candidates that are kept back: counting many costs little more than one."""
        candidates, self._starting = self._starting, []
        if not candidates:
            return
        genotypes = [candidate.genotype for candidate in candidates]
        # Counting costs takes longer than all else that is done for one candidate.
        problem = replace(self.problem, facts=self.problem.facts.of(genotypes))
        known, described = problem.known(genotypes), self.describe(problem, genotypes)
        for candidate, values, columns in zip(candidates, known, described, strict=True):
            facts = dict(columns)
            if self.adaptive_measurement is not None:
                facts |= self.adaptive_measurement.facts(candidate.arch_id)
            if candidate.parent is not None:
                facts[PARENT] = float(candidate.parent.number)
            self._running[candidate.number] = Trial(
                number=candidate.number,
                genotype=candidate.genotype,
                arch_id=candidate.arch_id,
                seed=candidate.seed,
                fidelity=candidate.fidelity,
                values=values,
                facts=facts,
            )
        self.evaluator.submit(candidates)

    def _arch_id(self, genotype: Genotype) -> str:
        # What is proposed is canonical.
        return Architecture(self.problem.space.space_id, genotype).arch_id

    def _receive(self, evaluations: Sequence[Evaluation]) -> None:
        """Record what has ended; what is reported together ended at the same time."""
        # Later than any before, so that the times tell the order of events.
        after_s = math.nextafter(self._now_s, math.inf)
        self._now_s = max(after_s, self.evaluator.clock() - self._zero_s)
        trials = [self._trial(evaluation) for evaluation in evaluations]
        self.ledger.append(*trials)
        self.stopping.note(trials)
        self.evaluator.end_at(self._zero_s + self.stopping.ends_s)
        for trial, evaluation in zip(trials, evaluations, strict=True):
            outcome = evaluation.outcome
            self._ended(trial, () if outcome is None else outcome.history)

    def _ended(self, trial: Trial, history: History | None = None) -> None:
        """Take note of a recorded trial."""
        if trial.cut:
            self._reach(trial.arch_id, trial.fidelity)
        self._waiting[trial.number] = trial
        self.on_trial(trial, history)

    def _trial(self, evaluation: Evaluation) -> Trial:
        """Return the trial of a candidate that has ended."""
        begun = self._running.pop(evaluation.candidate.number)
        values: dict[str, float] = {}
        facts = dict(begun.facts)
        failure, cut_at = evaluation.failure, None
        if evaluation.outcome is not None:
            cut_at = evaluation.outcome.cut_at
            limited, objectives = self.problem.limited, self.problem.objectives
            found = dict(begun.values)
            for name, objective in {**limited, **objectives}.items():
                if name not in found:
                    found[name] = objective.after_training(evaluation.outcome.metrics)
            not_finite = [f"{name} is {x}" for name, x in found.items() if not math.isfinite(x)]
            if not_finite:
                failure = str(CandidateFailure("diverged", ", ".join(not_finite)))
            else:
                values = {name: found[name] for name in objectives}
                facts |= {o.column: found[name] for name, o in limited.items()}
        return replace(
            begun,
            fidelity=begun.fidelity if cut_at is None else cut_at,
            cut=cut_at is not None,
            values=values,
            facts=facts,
            seconds=evaluation.seconds,
            ended_s=self._now_s,
            failure=failure,
        )
