"""Successive halving for several objectives: the rules MO-ASHA and MO-Hyperband."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from nas.core.errors import ConfigError, UnknownNameError
from nas.core.space import Genotype
from nas.core.trial import FULL, Trial
from nas.search.fidelity import FidelityRule, FidelitySettings, Proposal, register
from nas.search.problem import SearchProblem
from nas.search.ranking import most_promising


@dataclass(frozen=True, kw_only=True)
class LadderSettings(FidelitySettings):
    """A ladder of fidelities.

    Attributes:
        rungs: Shares of the full training at which architectures are compared; the last is 1.
        eta: One in so many goes on to the next rung.
        noise: By how much two trainings of one architecture may differ in an objective, in its
            unit: a lead of less does not count. Objectives left out are exact; `None`: all are.
    """

    rungs: tuple[float, ...] = (0.1, 0.33, FULL)
    eta: float = 3.0
    noise: dict[str, float] | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        rungs = list(self.rungs)
        rising = all(low < high for low, high in pairwise([0.0, *rungs]))
        if len(rungs) < 2 or not rising or rungs[-1] != FULL:
            expected = "two rising shares of the full training or more, the last 1"
            raise ConfigError("fidelity.rungs", rungs, expected)
        if not 1 < self.eta < math.inf:
            raise ConfigError("fidelity.eta", self.eta, "more than 1")
        for name, value in (self.noise or {}).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"fidelity.noise.{name}", value, "0 or more")

    @property
    def fidelities(self) -> tuple[float, ...]:
        """The rungs."""
        return self.rungs

    def check(self, objectives: Collection[str]) -> None:
        for name in self.noise or {}:
            if name not in objectives:
                among = "one of search.objectives:"
                raise UnknownNameError(f"fidelity.noise.{name}", name, objectives, among)


class Rung:
    """A rung of one ladder.

    Attributes:
        trials: That have ended here, failed ones included, in the order in which they were told.
    """

    def __init__(self, problem: SearchProblem, settings: LadderSettings) -> None:
        """Begin without trials."""
        settings.check(problem.objectives)
        noise = settings.noise or {}
        self.trials: list[Trial] = []
        self._objectives = tuple(problem.objectives)
        self._noise = np.array([noise.get(name, 0.0) for name in problem.objectives])

    def best(self, count: int) -> list[Genotype]:
        """Return the most promising so many, the best first; none that failed.

        Limits have no say: those known beforehand are kept by all, and one on what comes out of
        training may be kept after more of it.
        """
        complete = [trial for trial in self.trials if trial.complete]
        points = np.array([[trial.values[name] for name in self._objectives] for trial in complete])
        points = points.reshape(len(complete), len(self._objectives))
        return [complete[i].genotype for i in most_promising(points, self._noise, count)]


@register("mo_asha")
@dataclass(frozen=True, kw_only=True)
class MoAshaSettings(LadderSettings):
    """Settings of MO-ASHA.

    Attributes:
        looks: Results of a rung in a row after which an architecture must have been among its
            best to go on.
    """

    looks: int = 2

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        if self.looks < 1:
            raise ConfigError("fidelity.looks", self.looks, "1 or more")

    def start(self, problem: SearchProblem) -> FidelityRule:
        return MoAsha(problem, self)


class MoAsha(FidelityRule):
    """A run of MO-ASHA."""

    def __init__(self, problem: SearchProblem, settings: MoAshaSettings) -> None:
        """Promote architectures of `problem`."""
        self._settings = settings
        # By fidelity: the rungs, and for how many looks each of their best has been among them.
        self._rungs = {fidelity: Rung(problem, settings) for fidelity in settings.rungs[:-1]}
        self._looks: dict[float, dict[Genotype, int]] = {fidelity: {} for fidelity in self._rungs}
        self._promoted: set[Proposal] = set()

    def promotion(self, *, exhausted: bool = False) -> Proposal | None:
        rungs = self._settings.rungs
        for low, high in reversed(list(pairwise(rungs))):
            for genotype in self._due(low, exhausted=exhausted):
                proposal = Proposal(genotype, high)
                if proposal not in self._promoted:
                    self._promoted.add(proposal)
                    return proposal
        return None

    def enter(self, genotype: Genotype) -> float:
        del genotype
        return self._settings.rungs[0]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Look at a rung after each of its results."""
        for trial in trials:
            rung = self._rungs.get(trial.fidelity)
            if rung is not None:
                rung.trials.append(trial)
                looks = self._looks[trial.fidelity]
                best = rung.best(int(len(rung.trials) / self._settings.eta))
                self._looks[trial.fidelity] = {g: looks.get(g, 0) + 1 for g in best}

    def _due(self, fidelity: float, *, exhausted: bool) -> list[Genotype]:
        """Return what may go on from a rung, the best first; all of it if nothing else is left."""
        if exhausted:
            rung = self._rungs[fidelity]
            return rung.best(len(rung.trials))
        looks = self._looks[fidelity]
        return [genotype for genotype, n in looks.items() if n >= self._settings.looks]


@register("mo_hyperband")
@dataclass(frozen=True, kw_only=True)
class MoHyperbandSettings(LadderSettings):
    """Settings of MO-Hyperband: those of its ladder."""

    def start(self, problem: SearchProblem) -> FidelityRule:
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
        self._problem = problem
        self._settings = settings
        self._brackets: list[_Bracket] = []
        self._bracket_of: dict[Genotype, _Bracket] = {}

    def promotion(self, *, exhausted: bool = False) -> Proposal | None:
        # Of the oldest bracket first.
        if exhausted and self._brackets:
            last = self._brackets[-1]
            last.size = len(last.members)
            last.advance(self._settings.eta)
        queued = next((bracket.queue for bracket in self._brackets if bracket.queue), None)
        return queued.pop(0) if queued else None

    def enter(self, genotype: Genotype) -> float:
        if not self._brackets or len(self._brackets[-1].members) == self._brackets[-1].size:
            self._brackets.append(self._next_bracket())
        bracket = self._brackets[-1]
        bracket.members.add(genotype)
        self._bracket_of[genotype] = bracket
        return bracket.fidelities[0]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            bracket = self._bracket_of.get(trial.genotype)
            if bracket is not None:
                bracket.rungs[bracket.fidelities.index(trial.fidelity)].trials.append(trial)
                bracket.advance(self._settings.eta)

    def _next_bracket(self) -> _Bracket:
        """Return an empty bracket; each has a rung less than the one before, down to one."""
        rungs, eta = self._settings.rungs, self._settings.eta
        halvings = len(rungs) - 1 - len(self._brackets) % len(rungs)
        fidelities = rungs[len(rungs) - 1 - halvings :]
        return _Bracket(
            fidelities=fidelities,
            rungs=[Rung(self._problem, self._settings) for _ in fidelities],
            size=math.ceil(len(rungs) / (halvings + 1) * eta**halvings),
        )
