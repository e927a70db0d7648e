"""Where the progress of trainings is shown beside the ledger: one service a file.

The ledger stays the record of a study: nothing is read back from a log.
"""

from __future__ import annotations

import contextlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nas.core.errors import ConfigError, one_line
from nas.core.registry import Registry
from nas.core.trial import History, Trial


class Logger:
    """The log of one study; this one keeps nothing."""

    def trial(self, trial: Trial, numbers: Mapping[str, float], history: History) -> None:
        """Log a trial that has ended now; those of an earlier run were logged then.

        Args:
            trial: The trial, which may have failed.
            numbers: What is known of it, by the columns of `StudyResults.trials`.
            history: Of its training; see `Outcome.history`.
        """

    def trained(self, arch_id: str, stage: str, history: History) -> None:
        """Log the training of an architecture that is verified.

        Args:
            arch_id: Of the architecture.
            stage: "final", or "refit" on train and validation images together.
            history: Of the training.
        """

    def verified(self, arch_id: str, stage: str, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a verified architecture, by the columns of its `result.json`."""

    def close(self) -> None:
        """Write what is left to write."""


@dataclass(frozen=True, kw_only=True)
class LoggingSettings(ABC):
    """The settings of a logger, from which that of a study is started.

    Attributes:
        package: That it needs, which is an extra of `hwnas` by the same name; empty for none.
    """

    package: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check that the package is installed.

        Raises:
            ConfigError: It is not.
        """
        if self.package and importlib.util.find_spec(self.package) is None:
            fix = f"pip install 'hwnas[{self.package}]'"
            raise ConfigError("logging", self.package, "an installed package", fix)

    @abstractmethod
    def start(self, study: str, folder: Path) -> Logger:
        """Start the log of a study, or go on with it.

        Args:
            study: Name of the study.
            folder: Of the study.
        """


class GuardedLogger(Logger):
    """Hands on what is logged until that fails: it is said once, and the study goes on."""

    def __init__(self, start: Callable[[], Logger], say: Callable[[str], None]) -> None:
        """Start a logger by `start`; `say` is told the line of a failure."""
        self._say = say
        self._logger = Logger()
        with self._guarded():
            self._logger = start()

    def trial(self, trial: Trial, numbers: Mapping[str, float], history: History) -> None:
        with self._guarded():
            self._logger.trial(trial, numbers, history)

    def trained(self, arch_id: str, stage: str, history: History) -> None:
        with self._guarded():
            self._logger.trained(arch_id, stage, history)

    def verified(self, arch_id: str, stage: str, numbers: Mapping[str, float]) -> None:
        with self._guarded():
            self._logger.verified(arch_id, stage, numbers)

    def close(self) -> None:
        with self._guarded():
            self._logger.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a service or a disk raises
            self._logger = Logger()
            kept = "nothing more is logged, the ledger keeps every trial"
            self._say(f"logging has failed ({one_line(error)}); {kept}")


registry: Registry[LoggingSettings] = Registry("logging", __name__)
register = registry.register
component = registry.component
names = registry.names
get = registry.get


@register("none")
@dataclass(frozen=True, kw_only=True)
class NoLogging(LoggingSettings):
    """The ledger and what is printed are enough."""

    def start(self, study: str, folder: Path) -> Logger:
        del study, folder
        return Logger()


__all__ = [
    "GuardedLogger",
    "Logger",
    "LoggingSettings",
    "NoLogging",
    "component",
    "get",
    "names",
    "register",
    "registry",
]
