"""What the algorithms have in common: each architecture once, and none outside the limits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.network.blocks import IntArray
from nas.search.problem import SearchProblem


class Proposer(SearchAlgorithm):
    """Base of the algorithms: a subclass suggests architectures and learns from trials.

    Random feasible architectures are proposed first, and wherever nothing is suggested.

    Attributes:
        problem: What is searched for.
        rng: The random stream that decides everything.
        seen: Architectures that were proposed or told.
    """

    def __init__(self, problem: SearchProblem, seed: int, *, initial: int = 0) -> None:
        """Begin a search.

        Args:
            problem: What to search for.
            seed: Of the random stream.
            initial: Architectures that are drawn at random before anything is suggested.
        """
        self.problem = problem
        self.rng = np.random.default_rng(seed)
        self.seen: set[Genotype] = set()
        self._initial = initial

    def ask(self, n: int) -> list[Genotype]:
        """Propose `n` new genotypes; see `SearchAlgorithm.ask`."""
        proposed: list[Genotype] = []
        while len(proposed) < n:
            missing = n - len(proposed)
            random = self._initial - len(self.seen)
            batch = [] if random > 0 else self._suggest(missing)
            if not batch:
                drawn = min(missing, random) if random > 0 else missing
                batch = self.problem.samples_feasible(drawn, self.rng, self.seen)
            if not batch:
                break
            self.seen.update(batch)
            proposed += batch
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from complete trials; failed ones are only never proposed again."""
        self.seen.update(trial.genotype for trial in trials)
        complete = [trial for trial in trials if trial.complete]
        if complete:
            self._learn(complete)

    @abstractmethod
    def _suggest(self, n: int) -> list[Genotype]:
        """Return up to `n` architectures that `_admitted` has let pass, all different."""

    def _learn(self, trials: Sequence[Trial]) -> None:
        """Take note of complete trials, in the order in which they are told."""

    def _admitted(self, genotypes: Sequence[Sequence[int]] | IntArray) -> list[Genotype]:
        """Return the canonical forms that are new and feasible, each once, in their order."""
        space = self.problem.space
        folded = space.canonicalise(space.matrix(genotypes)).tolist()
        new = [g for g in dict.fromkeys(map(tuple, folded)) if g not in self.seen]
        kept = self.problem.feasible_rows(new)
        return [genotype for genotype, feasible in zip(new, kept, strict=True) if feasible]

    def _objectives(self, trial: Trial) -> list[float]:
        """Return the values of the problem's objectives, in their order."""
        return [trial.values[name] for name in self.problem.objectives]
