"""How far architectures are trained before others get their turn: one rule a file.

A rule stands between the loop and the search algorithm. The algorithm proposes new architectures;
the rule says with how much of the full training each begins, and which of those that have begun
are worth more of it. Their training goes on from where it ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nas.core.registry import Registry
from nas.core.space import Genotype
from nas.core.trial import FULL, Trial
from nas.search.problem import SearchProblem


@dataclass(frozen=True)
class Proposal:
    """An architecture that is to be trained, from the start or further.

    Attributes:
        genotype: Canonical genotype.
        fidelity: Share of the full training that it is to have had then.
    """

    genotype: Genotype
    fidelity: float


class FidelityRule:
    """A run of a rule; this one trains every architecture fully at once.

    What it decides depends on what it was asked and told so far, in its order, and on nothing else,
    so that replaying a ledger reproduces a search.
    """

    def promotion(self, *, exhausted: bool = False) -> Proposal | None:
        """Return the next architecture to train further; each rung is given once.

        Args:
            exhausted: Whether the algorithm has no new architectures any more, for which a rule
                would wait.

        Returns:
            `None` where it is the turn of a new architecture, or of none.
        """
        del exhausted
        return None

    def enter(self, genotype: Genotype) -> float:
        """Return the fidelity with which a new architecture begins, which is trained now."""
        del genotype
        return FULL

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take note of trials that have ended, failed ones included."""


@dataclass(frozen=True, kw_only=True)
class FidelitySettings(ABC):
    """The settings of a rule, from which a run of it is started."""

    @property
    @abstractmethod
    def fidelities(self) -> tuple[float, ...]:
        """The shares of the full training that occur, ascending; the last is 1."""

    def check(self, objectives: Collection[str]) -> None:
        """Check what is set of single objectives, given the names of all.

        Raises:
            ConfigError: The settings do not fit them.
        """
        del objectives

    @abstractmethod
    def start(self, problem: SearchProblem) -> FidelityRule:
        """Start a run on `problem`.

        Raises:
            ConfigError: The settings do not fit the problem.
        """


registry: Registry[FidelitySettings] = Registry("fidelity", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get


@register("full")
@dataclass(frozen=True, kw_only=True)
class FullSettings(FidelitySettings):
    """Full training has no settings."""

    @property
    def fidelities(self) -> tuple[float, ...]:
        """The full training alone."""
        return (FULL,)

    def start(self, problem: SearchProblem) -> FidelityRule:
        del problem
        return FidelityRule()


__all__ = [
    "FidelityRule",
    "FidelitySettings",
    "Proposal",
    "component",
    "get",
    "names",
    "register",
    "registry",
]
