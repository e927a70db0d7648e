"""What stands for election in the benchmark: ours and other tools, behind one small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.benchmark.task import Task
from nas.core.space import Genotype


class Optimiser(ABC):
    """One run of a contender on a task."""

    @abstractmethod
    def ask(self) -> Genotype | None:
        """Propose one genotype, also one that was proposed before; `None` where none is left."""

    @abstractmethod
    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        """Take note of the objectives, error in percent and log latencies, of what was asked."""


class Contender(ABC):
    """An optimiser with its settings.

    Attributes:
        name: Unique; names the file of its runs.
        label: For tables and figures.
    """

    name: str
    label: str

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What its runs depend on, for their record."""

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """How far its runs are taken."""

    @abstractmethod
    def missing(self) -> tuple[str, ...]:
        """Return the packages that it needs and that are not installed."""

    @abstractmethod
    def start(self, task: Task, seed: int) -> Optimiser:
        """Start a run; equal seeds give equal runs."""


@dataclass(frozen=True)
class Limits:
    """How far the runs of a slow contender are taken.

    Attributes:
        seeds: Most seeds; `None` for all.
        evaluations: Most distinct evaluations of a run; `None` for all.
    """

    seeds: int | None = None
    evaluations: int | None = None
