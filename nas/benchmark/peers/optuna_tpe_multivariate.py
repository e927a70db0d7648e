"""Optuna's TPE sampler with one density of all genes, its best setting on the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.benchmark.peers import Optimiser, Peer, register
from nas.benchmark.task import Task


@register("optuna_tpe_multivariate")
@dataclass(frozen=True, kw_only=True)
class OptunaTpeMultivariate(Peer):
    """With a joint density (Falkner et al., ICML 2018) few architectures are proposed again."""

    label: ClassVar[str] = "Optuna TPE, multivariate"
    packages: ClassVar[tuple[str, ...]] = ("optuna",)

    def start(self, task: Task, seed: int) -> Optimiser:
        """Start a run; see `Peer.start`."""
        from optuna.samplers import TPESampler

        from nas.benchmark.peers.studies import OptunaStudy

        return OptunaStudy(task, TPESampler(seed=seed, multivariate=True))
