"""Optuna's TPE sampler as it is by default: every gene has a density of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.benchmark.peers import Optimiser, Peer, register
from nas.benchmark.task import Task


@register("optuna_tpe")
@dataclass(frozen=True, kw_only=True)
class OptunaTpe(Peer):
    """Proposes architectures again that it has seen, which costs it nothing here."""

    label: ClassVar[str] = "Optuna TPE, default"
    packages: ClassVar[tuple[str, ...]] = ("optuna",)

    def start(self, task: Task, seed: int) -> Optimiser:
        """Start a run; see `Peer.start`."""
        from optuna.samplers import TPESampler

        from nas.benchmark.peers.studies import OptunaStudy

        return OptunaStudy(task, TPESampler(seed=seed))
