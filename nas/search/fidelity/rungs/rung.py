"""The architectures that were trained to one fidelity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search.fidelity.rungs.ranking import most_promising


@dataclass
class Rung:
    """A rung of one ladder.

    Attributes:
        objectives: Names.
        noise: Of every objective, shape `(m,)`.
        trials: That have ended here, failed ones included, in the order in which they were told.
    """

    objectives: tuple[str, ...]
    noise: FloatArray
    trials: list[Trial] = field(default_factory=list)

    def best(self, count: int) -> list[Genotype]:
        """Return the most promising so many, the best first; none that failed.

        Limits have no say: those known beforehand are kept by all, and one on what comes out of
        training may be kept after more of it.
        """
        complete = [trial for trial in self.trials if trial.complete]
        points = np.array([[trial.values[name] for name in self.objectives] for trial in complete])
        points = points.reshape(len(complete), len(self.objectives))
        return [complete[i].genotype for i in most_promising(points, self.noise, count)]
