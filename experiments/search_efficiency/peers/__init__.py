"""Other tools for the comparison, one tool a file, each loaded only when it runs.

`contenders.PEERS` names them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import metadata
from typing import ClassVar

from _shared.table_task import TableTask

from nas.core.space import Genotype


class Optimiser(ABC):
    """One run of a contender on a task."""

    @abstractmethod
    def ask(self) -> Genotype | None:
        """Propose one genotype, maybe one that was proposed before; `None` where none is left."""

    @abstractmethod
    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        """Take note of what was asked for last.

        Args:
            genotype: As it was proposed.
            values: Error in percent and log costs, to be made small.
        """


@dataclass(frozen=True)
class Limits:
    """How far the runs of a slow contender are taken.

    Attributes:
        seeds: Most seeds; `None` for all.
        evaluations: Most distinct evaluations of a run; `None` for all.
    """

    seeds: int | None = None
    evaluations: int | None = None


@dataclass(frozen=True, kw_only=True)
class Peer(ABC):
    """Another tool, in the settings that suit it best.

    Attributes:
        label: For tables and figures.
        packages: Distributions that it needs.
        limits: How far its runs are taken.
    """

    label: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    limits: ClassVar[Limits] = Limits()

    @abstractmethod
    def start(self, task: TableTask, seed: int) -> Optimiser:
        """Start a run; equal seeds give equal runs."""


def versions(peer: Peer) -> dict[str, str]:
    """Return the versions of those packages of a peer that are installed."""
    found = {}
    for package in peer.packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
