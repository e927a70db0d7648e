"""Proposing known architectures before a search algorithm proposes its own."""

from __future__ import annotations

from collections.abc import Sequence

from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.search.problem import SearchProblem


class WarmStart(SearchAlgorithm):
    """Any search algorithm, that is told of known architectures as soon as they are evaluated.

    They are evaluated like every other candidate, since what is known of them may come from other
    data, another device or another recipe.
    """

    def __init__(
        self, algorithm: SearchAlgorithm, problem: SearchProblem, first: Sequence[Genotype]
    ) -> None:
        """Propose known architectures first.

        Args:
            algorithm: Proposes everything else.
            problem: What is searched for.
            first: What to propose first; those that break a limit known before training, or that
                stand for the same network as an earlier one, are left out.
        """
        canonical = list(dict.fromkeys(problem.space.canonical(genotype) for genotype in first))
        kept = problem.feasible_rows(canonical)
        self._algorithm = algorithm
        self._left = [genotype for genotype, ok in zip(canonical, kept, strict=True) if ok]
        # The algorithm does not know that they were proposed, and may propose them itself.
        self._known = set(self._left)

    @property
    def multi_fidelity(self) -> bool:  # type: ignore[override]  # it depends on the algorithm
        """Whether the algorithm is told partial trainings as well."""
        return self._algorithm.multi_fidelity

    def ask(self, n: int) -> list[Genotype]:
        """Propose `n` new genotypes; see `SearchAlgorithm.ask`."""
        proposed, self._left = self._left[:n], self._left[n:]
        while len(proposed) < n:
            others = self._algorithm.ask(n - len(proposed))
            if not others:
                break
            proposed += [genotype for genotype in others if genotype not in self._known]
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell the algorithm of trials, also of those that it did not propose."""
        told = {trial.genotype for trial in trials}
        self._left = [genotype for genotype in self._left if genotype not in told]
        self._algorithm.tell(trials)
