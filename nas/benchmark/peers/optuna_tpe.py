"""Optuna's TPE sampler as it is by default: every gene has a density of its own.

It proposes architectures again that it has seen, which costs it no evaluation here, but the time
of a proposal grows with their number: 200 distinct ones took 700 proposals and 6 s, 300 took 2,800
and 2 minutes. Its runs end at 200.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.benchmark.peers import Limits, Optimiser, Peer, register
from nas.benchmark.task import Task


@register("optuna_tpe")
@dataclass(frozen=True, kw_only=True)
class OptunaTpe(Peer):
    """No settings."""

    label: ClassVar[str] = "Optuna TPE, default"
    packages: ClassVar[tuple[str, ...]] = ("optuna",)
    limits: ClassVar[Limits] = Limits(evaluations=200)

    def start(self, task: Task, seed: int) -> Optimiser:
        """Start a run; see `Peer.start`."""
        from optuna.samplers import TPESampler

        from nas.benchmark.peers.studies import OptunaStudy

        return OptunaStudy(task, TPESampler(seed=seed))
