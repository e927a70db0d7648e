"""Optuna's Gaussian process sampler."""

from __future__ import annotations

import warnings
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
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import GPSampler

        from nas.benchmark.peers.studies import OptunaStudy

        with warnings.catch_warnings():
            # A table answers the same each time, which the sampler takes only experimentally.
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = GPSampler(seed=seed, deterministic_objective=True)
        return OptunaStudy(task, sampler)
