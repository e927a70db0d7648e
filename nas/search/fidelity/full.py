"""One fidelity: every architecture gets its full training at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.core.space import Genotype
from nas.core.trial import FULL, Trial
from nas.search.fidelity import FidelityRule, FidelitySettings, Proposal, register
from nas.search.problem import SearchProblem


@register("full")
@dataclass(frozen=True, kw_only=True)
class FullSettings(FidelitySettings):
    """Full training has no settings."""

    @property
    def fidelities(self) -> tuple[float, ...]:
        """The full training alone."""
        return (FULL,)

    def start(self, problem: SearchProblem) -> FidelityRule:
        """Start a run; see `FidelitySettings.start`."""
        del problem
        return FullTraining()


class FullTraining(FidelityRule):
    """Promotes nothing."""

    def promotion(self, *, exhausted: bool = False) -> Proposal | None:
        """Return `None`: whatever has begun is complete."""
        del exhausted
        return None

    def enter(self, genotype: Genotype) -> float:
        """Return the full fidelity."""
        del genotype
        return FULL

    def tell(self, trials: Sequence[Trial]) -> None:
        """Full training learns nothing."""
