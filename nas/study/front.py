"""The front of a search, as the search sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.core.trial import Trial
from nas.results.hypervolume import hypervolume, hypervolume_order
from nas.search.problem import SearchProblem


@dataclass(frozen=True)
class SearchFront:
    """Judges the full trainings of a search that keep all limits.

    Attributes:
        problem: What is searched for.
        reference_point: Of the hypervolume, by the objective's name.
    """

    problem: SearchProblem
    reference_point: Mapping[str, float]

    def hypervolume(self, trials: Sequence[Trial]) -> float:
        """Return the hypervolume of trials."""
        return hypervolume(self._points(self._kept(trials)), self._corner)

    def members(self, trials: Sequence[Trial], most: int) -> list[str]:
        """Return the `arch_id` of `most` members of the front, those first that add the most."""
        kept = self._kept(trials)
        order = hypervolume_order(self._points(kept), self._corner, most)
        return [kept[i].arch_id for i in order]

    def _kept(self, trials: Sequence[Trial]) -> list[Trial]:
        return [trial for trial in trials if trial.full and self.problem.kept(trial)]

    def _points(self, trials: Sequence[Trial]) -> list[list[float]]:
        return [[trial.values[name] for name in self.problem.objectives] for trial in trials]

    @property
    def _corner(self) -> list[float]:
        return [self.reference_point[name] for name in self.problem.objectives]
