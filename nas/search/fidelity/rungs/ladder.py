"""The settings of successive halving: which fidelities, and what share goes on to the next."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray
from nas.core.trial import FULL
from nas.search.fidelity import FidelitySettings


@dataclass(frozen=True, kw_only=True)
class LadderSettings(FidelitySettings):
    """A ladder of fidelities.

    Attributes:
        rungs: Shares of the full training at which architectures are compared; the last is 1.
        eta: One in so many goes on to the next rung.
        noise: By how much two trainings of one architecture may differ in an objective, in its
            unit: a lead of less does not count. Objectives left out are exact; `None`: all are.
    """

    rungs: tuple[float, ...] = (0.1, 0.33, FULL)
    eta: float = 3.0
    noise: dict[str, float] | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        rungs = list(self.rungs)
        rising = all(low < high for low, high in zip([0.0, *rungs], rungs, strict=False))
        if len(rungs) < 2 or not rising or rungs[-1] != FULL:
            expected = "two rising shares of the full training or more, the last 1"
            raise ConfigError("fidelity.rungs", rungs, expected)
        if not 1 < self.eta < math.inf:
            raise ConfigError("fidelity.eta", self.eta, "more than 1")
        for name, value in (self.noise or {}).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"fidelity.noise.{name}", value, "0 or more")

    @property
    def fidelities(self) -> tuple[float, ...]:
        """The rungs."""
        return self.rungs

    def check(self, objectives: Collection[str]) -> None:
        """Refuse the noise of something else; see `FidelitySettings.check`."""
        for name in self.noise or {}:
            if name not in objectives:
                expected = "one of search.objectives: " + ", ".join(objectives)
                raise ConfigError(f"fidelity.noise.{name}", name, expected)

    def tolerances(self, objectives: Collection[str]) -> FloatArray:
        """Return the noise of every objective, shape `(m,)`.

        Raises:
            ConfigError: See `check`.
        """
        self.check(objectives)
        noise = self.noise or {}
        return np.array([noise.get(name, 0.0) for name in objectives])
