"""What the algorithms have in common: each architecture once, and none outside the limits.

`WarmStart` lets any algorithm begin with known architectures.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from nas.core.space import Genotype
from nas.core.trial import Candidate, SearchAlgorithm, Trial
from nas.network.blocks import IntArray
from nas.search.problem import SearchProblem


class Proposer(SearchAlgorithm):
    """Base of the algorithms: a subclass suggests architectures and learns from trials.

    Random feasible architectures are proposed first, and wherever nothing is suggested.

    Attributes:
        problem: What is searched for.
        rng: The random stream that decides everything.
        seen: Architectures that were proposed, pending or told.
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
        self._noted: set[int] = set()
        self._initial = initial

    def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
        # By number, which is hashed sooner than a genotype: thousands may be pending.
        new = [candidate for candidate in pending if candidate.number not in self._noted]
        self._noted.update(candidate.number for candidate in new)
        self.seen.update(candidate.genotype for candidate in new)
        proposed: list[Genotype] = []
        while len(proposed) < n:
            missing = n - len(proposed)
            random = self._initial - len(self.seen)
            batch: list[Genotype] = []
            if random <= 0:
                unsettled = [candidate.genotype for candidate in pending]
                batch = self._suggest(missing, [*unsettled, *proposed])
            if not batch:
                batch = self._random(min(missing, random) if random > 0 else missing)
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
    def _suggest(self, n: int, pending: Sequence[Genotype]) -> list[Genotype]:
        """Return up to `n` new, feasible architectures, all different.

        Args:
            n: At most so many.
            pending: Architectures under evaluation, and those proposed in the same call.
        """

    def _random(self, n: int) -> list[Genotype]:
        """Return up to `n` new, feasible architectures drawn at random, all different."""
        return self.problem.samples_feasible(n, self.rng, self.seen)

    def _learn(self, trials: Sequence[Trial]) -> None:
        """Take note of complete trials, in the order in which they are told."""

    def _admitted(self, genotypes: Sequence[Sequence[int]] | IntArray) -> list[Genotype]:
        """Return the canonical forms that are new and feasible, each once, in their order."""
        space = self.problem.space
        canonical = space.canonicalise(space.matrix(genotypes)).tolist()
        new = [g for g in dict.fromkeys(map(tuple, canonical)) if g not in self.seen]
        kept = self.problem.feasible_rows(new)
        return [genotype for genotype, feasible in zip(new, kept, strict=True) if feasible]

    def _objectives(self, trial: Trial) -> list[float]:
        """Return the values of the problem's objectives, in their order."""
        return [trial.values[name] for name in self.problem.objectives]


class WarmStart(SearchAlgorithm):
    """A search algorithm that begins with known architectures, and then is another algorithm.

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
        # The algorithm may propose them itself, before they are pending or where they were refused.
        self._known = set(self._left)

    @property
    def multi_fidelity(self) -> bool:  # type: ignore[override]  # it depends on the algorithm
        """Whether the algorithm is told partial trainings as well."""
        return self._algorithm.multi_fidelity

    def ask(self, n: int, pending: Sequence[Candidate] = ()) -> list[Genotype]:
        proposed, self._left = self._left[:n], self._left[n:]
        while len(proposed) < n:
            others = self._algorithm.ask(n - len(proposed), pending)
            if not others:
                break
            proposed += [genotype for genotype in others if genotype not in self._known]
        return proposed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell the algorithm of trials, also of those that it did not propose."""
        told = {trial.genotype for trial in trials}
        self._left = [genotype for genotype in self._left if genotype not in told]
        self._algorithm.tell(trials)
