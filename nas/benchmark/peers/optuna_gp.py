"""Optuna's Gaussian process sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.benchmark.peers import Limits, Optimiser, Peer, register
from nas.benchmark.task import Task


@register("optuna_gp")
@dataclass(frozen=True, kw_only=True)
class OptunaGp(Peer):
    """Gaussian processes and the logarithm of the expected hypervolume improvement."""

    label: ClassVar[str] = "Optuna GP"
    packages: ClassVar[tuple[str, ...]] = ("optuna",)
    limits: ClassVar[Limits] = Limits(seeds=3, evaluations=100)

    def start(self, task: Task, seed: int) -> Optimiser:
        """Start a run; see `Peer.start`."""
        from optuna.samplers import GPSampler

        from nas.benchmark.peers.studies import OptunaStudy

        return OptunaStudy(task, GPSampler(seed=seed, deterministic_objective=True))
