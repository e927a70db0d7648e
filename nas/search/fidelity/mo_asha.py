"""MO-ASHA: asynchronous successive halving for several objectives.

Schmucker, Donini, Zafar, Salinas and Archambeau, "Multi-objective asynchronous successive halving"
(2021), after ASHA (Li et al., MLSys 2020). Whenever a place is free, the highest rung is looked
for on which one of the best `1 / eta` has not gone on yet; without any, a new architecture begins
on the lowest rung. So no worker ever waits for a rung to fill.

Early on a rung, and on its edge, whether an architecture is among the best changes with every
result. One goes on when it was among them for several looks in a row; nothing is ever discarded,
so that who loses its place for a moment gets it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.fidelity import FidelityRule, Proposal, register
from nas.search.fidelity.rungs.ladder import LadderSettings
from nas.search.fidelity.rungs.rung import Rung
from nas.search.problem import SearchProblem


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
        """Start a run; see `FidelitySettings.start`."""
        return MoAsha(problem, self)


@dataclass
class _Watched:
    """A rung, and for how many looks each of its best has been among them."""

    rung: Rung
    following: float
    looks: dict[Genotype, int] = field(default_factory=dict)
    promoted: set[Genotype] = field(default_factory=set)


class MoAsha(FidelityRule):
    """A run of MO-ASHA."""

    def __init__(self, problem: SearchProblem, settings: MoAshaSettings) -> None:
        """Promote architectures of `problem`."""
        self._settings = settings
        names, noise = tuple(problem.objectives), settings.tolerances(problem.objectives)
        steps = zip(settings.rungs, settings.rungs[1:], strict=False)
        self._rungs = {low: _Watched(Rung(names, noise), high) for low, high in steps}

    def promotion(self, *, exhausted: bool = False) -> Proposal | None:
        """Return one of the best of the highest rung that has any left; see `FidelityRule`."""
        for watched in reversed(self._rungs.values()):
            for genotype in self._due(watched, exhausted=exhausted):
                if genotype not in watched.promoted:
                    watched.promoted.add(genotype)
                    return Proposal(genotype, watched.following)
        return None

    def enter(self, genotype: Genotype) -> float:
        """Return the lowest rung."""
        del genotype
        return self._settings.rungs[0]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Look at a rung after each of its results."""
        for trial in trials:
            watched = self._rungs.get(trial.fidelity)
            if watched is not None:
                watched.rung.trials.append(trial)
                share = int(len(watched.rung.trials) / self._settings.eta)
                best = watched.rung.best(share)
                watched.looks = {g: watched.looks.get(g, 0) + 1 for g in best}

    def _due(self, watched: _Watched, *, exhausted: bool) -> list[Genotype]:
        """Return what may go on from a rung, the best first; all of it if nothing else is left."""
        if exhausted:
            return watched.rung.best(len(watched.rung.trials))
        return [g for g, looks in watched.looks.items() if looks >= self._settings.looks]
