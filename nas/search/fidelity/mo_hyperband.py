"""MO-Hyperband: brackets of successive halving, for several objectives.

Hyperband (Li et al., JMLR 18, 2018) hedges between many short trainings and few long ones: the
first bracket begins with many architectures on the lowest rung, each following one with fewer on a
higher rung, and the last trains fully from the start. In a bracket a rung must be complete before
its best go on. While it is not, the next bracket begins, so that workers have something to do.
Who goes on is decided as in MO-ASHA, by front and hypervolume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.fidelity import FidelityRule, Proposal, register
from nas.search.fidelity.rungs.ladder import LadderSettings
from nas.search.fidelity.rungs.rung import Rung
from nas.search.problem import SearchProblem


@register("mo_hyperband")
@dataclass(frozen=True, kw_only=True)
class MoHyperbandSettings(LadderSettings):
    """Settings of MO-Hyperband: those of its ladder."""

    def start(self, problem: SearchProblem) -> FidelityRule:
        """Start a run; see `FidelitySettings.start`."""
        return MoHyperband(problem, self)


@dataclass
class _Bracket:
    """One run of successive halving.

    Attributes:
        fidelities: Of its rungs, ascending.
        rungs: The rungs.
        size: Architectures that are to begin.
        members: Those that have.
        due: How many results each rung waits for, as far as that is known.
        queue: Chosen and not yet returned.
    """

    fidelities: tuple[float, ...]
    rungs: list[Rung]
    size: int
    members: set[Genotype] = field(default_factory=set)
    due: list[int] = field(default_factory=list)
    queue: list[Proposal] = field(default_factory=list)

    def tell(self, trial: Trial, eta: float) -> None:
        """Take note of a member's result; queue what follows from it."""
        self.rungs[self.fidelities.index(trial.fidelity)].trials.append(trial)
        self.advance(eta)

    def advance(self, eta: float) -> None:
        """Queue the best of a rung that has just become complete."""
        if len(self.members) < self.size:
            return
        self.due = self.due or [self.size]
        last = len(self.due) - 1
        rung = self.rungs[last]
        if last + 1 == len(self.rungs) or len(rung.trials) < self.due[last]:
            return
        best = rung.best(max(int(self.size / eta ** (last + 1)), 1))
        self.due.append(len(best))
        self.queue += [Proposal(genotype, self.fidelities[last + 1]) for genotype in best]


class MoHyperband(FidelityRule):
    """A run of MO-Hyperband."""

    def __init__(self, problem: SearchProblem, settings: MoHyperbandSettings) -> None:
        """Promote architectures of `problem`."""
        self._settings = settings
        self._names = tuple(problem.objectives)
        self._noise = settings.tolerances(problem.objectives)
        self._brackets: list[_Bracket] = []
        self._bracket_of: dict[Genotype, _Bracket] = {}

    def promotion(self, *, exhausted: bool = False) -> Proposal | None:
        """Return what was chosen on a complete rung, of the oldest bracket first."""
        if exhausted and self._brackets:
            last = self._brackets[-1]
            last.size = len(last.members)
            last.advance(self._settings.eta)
        queued = next((bracket.queue for bracket in self._brackets if bracket.queue), None)
        return queued.pop(0) if queued else None

    def enter(self, genotype: Genotype) -> float:
        """Return the lowest rung of the bracket that is being filled."""
        if not self._brackets or len(self._brackets[-1].members) == self._brackets[-1].size:
            self._brackets.append(self._next_bracket())
        bracket = self._brackets[-1]
        bracket.members.add(genotype)
        self._bracket_of[genotype] = bracket
        return bracket.fidelities[0]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let every bracket take note of its own."""
        for trial in trials:
            bracket = self._bracket_of.get(trial.genotype)
            if bracket is not None:
                bracket.tell(trial, self._settings.eta)

    def _next_bracket(self) -> _Bracket:
        """Return an empty bracket; each has a rung less than the one before, down to one."""
        rungs, eta = self._settings.rungs, self._settings.eta
        halvings = len(rungs) - 1 - len(self._brackets) % len(rungs)
        fidelities = rungs[len(rungs) - 1 - halvings :]
        return _Bracket(
            fidelities=fidelities,
            rungs=[Rung(self._names, self._noise) for _ in fidelities],
            size=math.ceil(len(rungs) / (halvings + 1) * eta**halvings),
        )
