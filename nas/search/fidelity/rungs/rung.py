"""The architectures that were trained to one fidelity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.fidelity.rungs.ranking import promotion_order
from nas.search.problem import SearchProblem


@dataclass
class Rung:
    """A rung of one ladder.

    Attributes:
        problem: What is searched for.
        noise: Of every objective, shape `(m,)`.
        trials: That have ended here, failed ones included, in the order in which they were told.
        promoted: What goes on, or has gone on, to the next rung.
    """

    problem: SearchProblem
    noise: FloatArray
    trials: list[Trial] = field(default_factory=list)
    promoted: set[Genotype] = field(default_factory=set)

    def best(self, count: int) -> list[Genotype]:
        """Return the best so many, the best first; those that failed or break a limit never."""
        names = list(self.problem.objectives)
        able = [trial for trial in self.trials if self._able(trial)]
        points = np.array([[trial.values[name] for name in names] for trial in able])
        order = promotion_order(points.reshape(len(able), len(names)), self.noise)
        return [able[i].genotype for i in order[:count]]

    def _able(self, trial: Trial) -> bool:
        # What is limited and comes out of training may yet be met by more of it.
        if not trial.complete:
            return False
        return all(
            violation <= 0
            for violation, known in zip(
                self.problem.violations(trial), self._known_limits(trial), strict=True
            )
            if known
        )

    def _known_limits(self, trial: Trial) -> list[bool]:
        known = self.problem.known([trial.genotype])[0]
        return [constraint.objective in known for constraint in self.problem.constraints]
