"""Search algorithms: one algorithm a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nas.core.registry import Registry
from nas.core.trial import SearchAlgorithm
from nas.search.problem import SearchProblem


@dataclass(frozen=True, kw_only=True)
class AlgorithmSettings(ABC):
    """The settings of a search algorithm, from which a run of it is started."""

    @abstractmethod
    def start(self, problem: SearchProblem, seed: int) -> SearchAlgorithm:
        """Start a run on `problem`; equal seeds give equal runs."""


registry: Registry[AlgorithmSettings] = Registry("search algorithm", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get

__all__ = ["AlgorithmSettings", "component", "get", "names", "register", "registry"]
