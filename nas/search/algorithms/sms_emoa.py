"""SMS-EMOA (Beume, Naujoks and Emmerich, 2007) on genotypes.

Of the two indicator-based algorithms that suit small budgets, this one and AGE-MOEA
(Panichella, 2019), it is the one that needs no compiler: pymoo's AGE-MOEA imports numba.
"""

from __future__ import annotations

from dataclasses import dataclass

from pymoo.algorithms.moo.sms import SMSEMOA

from nas.core.trial import SearchAlgorithm
from nas.search.algorithms import register
from nas.search.algorithms.genetic.operators import tournament
from nas.search.algorithms.genetic.run import GeneticRun, operators
from nas.search.algorithms.genetic.settings import GeneticSettings
from nas.search.problem import SearchProblem


@register("sms_emoa")
@dataclass(frozen=True, kw_only=True)
class SmsEmoaSettings(GeneticSettings):
    """Settings of SMS-EMOA: of the worst rank, who adds least hypervolume does not survive."""

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        selection = tournament("CV", "rank")
        return GeneticRun(problem, seed, SMSEMOA(selection=selection, **operators(self, problem)))
