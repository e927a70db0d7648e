"""Evaluators: one way of giving a candidate its accuracy a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from nas.core.dataset import Examples
from nas.core.recipe import Recipe
from nas.core.registry import Registry
from nas.core.trial import Evaluator, Job

if TYPE_CHECKING:
    from nas.network.inheritance import InitialWeights
    from nas.network.space import SearchSpace
    from nas.network.trained import Preprocessing


class CandidateTraining(Job, Protocol):
    """The job that trains candidates, as evaluators see it that do something else with them."""

    @property
    def space(self) -> SearchSpace:
        """Builds the candidates."""

    @property
    def train(self) -> Examples:
        """Examples trained on."""

    @property
    def held_out(self) -> Examples:
        """Examples judged on."""

    def with_held_out(self, images: Examples) -> Self:
        """Return the job that judges on other examples."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Of all images."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(ABC):
    """The settings of an evaluator, from which a run of it is started."""

    @property
    def threads(self) -> int:
        """Threads of torch in a worker."""
        return 1

    @property
    def processes(self) -> int:
        """Processes that train one candidate together, each on a GPU of its own."""
        return 1

    def memory_share(self, *, here: bool) -> float:
        """Return the share that a worker may take of its GPU's or its host's memory, up to 1.

        Args:
            here: Whether the workers are on this host, of which it is known how many there are.
        """
        del here
        return 1.0

    def judged(self, validation: int) -> int:
        """Return how many of so many validation images a candidate is judged on."""
        return validation

    @property
    def published(self) -> Mapping[str, str]:
        """What numbers are that others have published: text by column; empty of one's own."""
        return {}

    @abstractmethod
    def job(self, training: Callable[[Recipe], CandidateTraining], *, partial: bool = False) -> Job:
        """Return what is done with the candidates of a search.

        Args:
            training: Returns the job that trains candidates by a recipe.
            partial: Whether there are candidates of a fidelity below 1.
        """

    def prepare(self, job: Job, folder: Path) -> Job:
        """Do the work that is done once for a search; return the job that uses its result.

        It is called while connected, before the first candidate of every run of a study. What it
        finds in `folder` it need not make again. The returned job is sent to the workers once, by
        way of Ray's object store, and never with a candidate; NumPy arrays in it are read there
        without a copy. By default there is nothing to do.

        Args:
            job: As `job` returned it.
            folder: Of the study, to keep the result in; it may not exist yet.
        """
        del folder
        return job

    def final_weights(self, job: Job, folder: Path) -> InitialWeights | None:
        """Return weights that the training of a front begins with; `None`, the default, for none.

        Args:
            job: As `job` returned it.
            folder: As of `prepare`, which has been called.
        """
        del job, folder
        return None

    @property
    def inherits(self) -> bool:
        """Whether a candidate begins with the weights of a similar one."""
        return False

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
            limited: Whether a time limit holds; the training of a front takes what it takes.

        Raises:
            ConfigError: The cluster has no room for a worker.
        """


registry: Registry[EvaluationSettings] = Registry("evaluation", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = [
    "CandidateTraining",
    "EvaluationSettings",
    "component",
    "get",
    "names",
    "register",
    "registry",
]
