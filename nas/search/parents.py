"""Which trained architecture a candidate takes its first weights from.

A candidate begins with the weights of the most similar architecture whose training has been told,
so that shorter trainings tell candidates apart (network morphism: Elsken et al., ICLR 2019). The
choice depends on the trials that were told before the candidate was asked for, and on nothing else:
in batch mode it is the same for any number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from nas.core.trial import FULL, Candidate, Parent, Trial
from nas.search.problem import SearchProblem
from nas.search.ranking import constrained_ranks

LAST = 16
"""Full trainings, the last that were told, whose weights are kept beside those of the front."""

PARENT = "parent"
"""Fact of a trial: number of the trial whose weights its training began with."""


class WeightStore(Protocol):
    """Where the weights of full trainings lie; `nas.evaluation.checkpoints.CheckpointFolder`."""

    def latest(self, arch_id: str, fidelity: float) -> bytes | None:
        """Return the weights of an architecture, `None` where they are lost."""

    def discard(self, arch_id: str) -> None:
        """Delete the weights of an architecture."""


@dataclass
class Parents:
    """Chooses parents among the members of the front and the last trainings.

    What may be a parent later was one before, ever since it was told. So weights that are deleted
    are those that no candidate needs any more, and a search that was interrupted goes on as if it
    had not been.

    Attributes:
        problem: What is searched for.
        weights: Of the trainings that have ended.
        say: Called with a line for people.
    """

    problem: SearchProblem
    weights: WeightStore
    say: Callable[[str], None]
    _told: int = field(default=0, init=False)
    _front: list[Trial] = field(default_factory=list, init=False)
    _last: deque[Trial] = field(default_factory=lambda: deque(maxlen=LAST), init=False)
    # Told, and with weights that have not been deleted.
    _stored: set[str] = field(default_factory=set, init=False)
    _cut: set[str] = field(default_factory=set, init=False)
    # Of candidates that are pending, by their numbers.
    _used: dict[int, str] = field(default_factory=dict, init=False)

    def with_parent(
        self, candidate: Candidate, told: Sequence[Trial], pending: Collection[int]
    ) -> Candidate:
        """Return a candidate with its parent; without one if its training goes on after a cut.

        Args:
            candidate: Which is to be trained.
            told: All trials that have been told, in their order.
            pending: Numbers of the candidates that are not told yet, this one included.
        """
        self._note(told[self._told :])
        self._told = len(told)
        self._used = {n: arch_id for n, arch_id in self._used.items() if n in pending}
        parent = None
        nearest = None if candidate.arch_id in self._cut else self._nearest(candidate)
        if nearest is not None:
            weights = self.weights.latest(nearest.arch_id, FULL)
            if weights is None:
                lost = f"the weights of trial {nearest.number} are lost"
                self.say(f"trial {candidate.number} begins with random weights: {lost}")
            else:
                self._used[candidate.number] = nearest.arch_id
                parent = Parent(nearest.number, nearest.genotype, weights)
        self._discard()
        return replace(candidate, parent=parent)

    def _note(self, trials: Sequence[Trial]) -> None:
        self._cut.update(trial.arch_id for trial in trials if trial.cut)
        trained = [trial for trial in trials if trial.complete and trial.full]
        self._stored.update(trial.arch_id for trial in trained)
        self._last.extend(trained)
        front = [*self._front, *(trial for trial in trained if self.problem.kept(trial))]
        values = np.array([[t.values[n] for n in self.problem.objectives] for t in front])
        if front:
            ranks = constrained_ranks(values, np.zeros(len(front)))
            self._front = [trial for trial, rank in zip(front, ranks, strict=True) if rank == 0]

    def _nearest(self, candidate: Candidate) -> Trial | None:
        """Return the trial with the fewest genes that differ; of several ones the first."""
        unique = {trial.number: trial for trial in [*self._front, *self._last]}
        trials = [unique[number] for number in sorted(unique)]
        if not trials:
            return None
        genotypes = self.problem.space.matrix([candidate.genotype, *(t.genotype for t in trials)])
        active = self.problem.space.actives(genotypes)
        # A gene that only one of both networks reads is one in which they differ.
        differs = (active != active[0]) | (active & (genotypes != genotypes[0]))
        return trials[int(differs[1:].sum(1).argmin())]

    def _discard(self) -> None:
        """Delete the weights of what can be no parent any more and is none of a pending one."""
        needed = {t.arch_id for t in [*self._front, *self._last]}.union(self._used.values())
        for arch_id in self._stored - needed:
            self.weights.discard(arch_id)
        self._stored &= needed
