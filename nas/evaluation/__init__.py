"""Evaluators: one way of giving a candidate its accuracy a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from nas.core.recipe import Recipe
from nas.core.registry import Registry
from nas.core.trial import Evaluator, Job


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(ABC):
    """The settings of an evaluator, from which a run of it is started.

    Attributes:
        recipe: How candidates are trained.
        threads_per_worker: Of torch, and processor cores that a worker takes.
    """

    recipe: Recipe = field(default_factory=Recipe)
    threads_per_worker: int = 1

    @property
    def on_gpus(self) -> bool:
        """Whether candidates are trained on GPUs."""
        return False

    def workers_here(self) -> int | None:
        """Return how many candidates this host runs at a time; `None` if it cannot tell."""
        return None

    @abstractmethod
    def connected(self, address: str | None) -> AbstractContextManager[None]:
        """Connect to the workers' cluster for the time of a `with` block.

        Args:
            address: Of the cluster to use; `None` starts one on this host.

        Raises:
            ConfigError: There is no such cluster.
        """

    @abstractmethod
    def start(self, job: Job, *, limited: bool = True) -> Evaluator:
        """Start workers that run `job`, while connected.

        Args:
            job: What to do with a candidate.
            limited: Whether a time limit holds; the retraining of a front takes what it takes.

        Raises:
            ConfigError: The cluster has no room for a worker.
        """


registry: Registry[EvaluationSettings] = Registry("evaluation", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["EvaluationSettings", "component", "get", "names", "register", "registry"]
