"""The tree-structured Parzen estimator of Optuna, on one objective or several.

Bergstra et al., NeurIPS 2011; several objectives: Ozaki et al., GECCO 2020; constraints: Watanabe
and Hutter, IJCAI 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from optuna.samplers import TPESampler

from nas.core.errors import ConfigError
from nas.core.trial import SearchAlgorithm
from nas.search.algorithms import AlgorithmSettings, register
from nas.search.algorithms.samplers.run import SamplerRun
from nas.search.problem import SearchProblem


@register("tpe")
@dataclass(frozen=True, kw_only=True)
class TpeSettings(AlgorithmSettings):
    """Settings of the tree-structured Parzen estimator.

    Attributes:
        startup: Complete trials before which architectures are drawn at random.
        candidates: Draws from the estimate of good architectures, of which the one with the largest
            expected improvement is proposed.
        multivariate: Whether the genes' densities are joint; by single genes, Optuna proposes what
            it has seen over and over (Falkner et al., ICML 2018, have them joint).
    """

    startup: int = 10
    candidates: int = 24
    multivariate: bool = True

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("startup", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.algorithm.{name}", getattr(self, name), "1 or more")

    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run; see `AlgorithmSettings.start`."""
        sampler = TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            multivariate=self.multivariate,
            seed=seed,
        )
        return SamplerRun(problem, seed, sampler)
