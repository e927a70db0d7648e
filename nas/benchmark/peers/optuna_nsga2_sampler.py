"""Optuna's NSGA-II sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.benchmark.peers import Optimiser, Peer, register
from nas.benchmark.task import Task


@register("optuna_nsga2_sampler")
@dataclass(frozen=True, kw_only=True)
class OptunaNsga2Sampler(Peer):
    """With a population that suits some hundred evaluations; the sampler's default is 50.

    Attributes:
        population: Architectures of a generation.
    """

    population: int = 20

    label: ClassVar[str] = "Optuna NSGA-II"
    packages: ClassVar[tuple[str, ...]] = ("optuna",)

    def start(self, task: Task, seed: int) -> Optimiser:
        """Start a run; see `Peer.start`."""
        from optuna.samplers import NSGAIISampler

        from nas.benchmark.peers.studies import OptunaStudy

        return OptunaStudy(task, NSGAIISampler(population_size=self.population, seed=seed))
