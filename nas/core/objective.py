"""Objectives and the constraints that may limit them."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar, TypeVar

from nas.core.errors import ConfigError
from nas.core.prediction import FloatArray, LatencyPredictor, MemoryPredictor
from nas.core.space import Genotype

if TYPE_CHECKING:
    import pandas as pd

Values = TypeVar("Values", float, FloatArray)


@dataclass(frozen=True)
class Facts:
    """What is known of candidates before any of them is trained.

    Attributes:
        costs: Exact counts of genotypes: columns `params_m`, `macs_m`, `peak_activation_mb`,
            `model_size_mb`, one row a genotype.
        predictor: The calibrated latency predictor, or `None` where no objective needs one.
        memory: The calibrated predictor of peak memory, or `None` where no objective needs one.
        published_ms: Latencies of genotypes on the study's device, as a published table has them,
            in milliseconds, shape `(n,)`; `None` without a table.
        sram: The calibrated predictor of a microcontroller's memory; `None` of other devices.
        flash: That of its flash.
    """

    costs: Callable[[Sequence[Genotype]], pd.DataFrame]
    predictor: LatencyPredictor | None
    memory: MemoryPredictor | None = None
    published_ms: Callable[[Sequence[Genotype]], FloatArray] | None = None
    sram: MemoryPredictor | None = None
    flash: MemoryPredictor | None = None

    def of(self, genotypes: Sequence[Genotype]) -> Facts:
        """Return the same facts; the costs of these genotypes are counted at most once."""
        counted = cache(lambda: self.costs(genotypes))
        return replace(
            self, costs=lambda asked: counted() if asked is genotypes else self.costs(asked)
        )


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """One number of an architecture, to be made small.

    Its value is known `before_training` or comes out of the evaluation; a subclass overrides one
    of the two methods.

    Attributes:
        measured_column: The name of what a device measures where `column` holds predictions; with
            `_ci` behind it, of the half width of its 95 % interval.
        needs_predictor: Whether a calibrated latency predictor must be at hand.
        needs_memory: Whether a calibrated predictor of peak memory must be at hand.
        needs_table: Whether a table of published latencies must be at hand.
        needs_estimates: Whether calibrated predictors of a microcontroller's memories must be at
            hand, of which a tool tells.
    """

    measured_column: ClassVar[str | None] = None
    needs_predictor: ClassVar[bool] = False
    needs_memory: ClassVar[bool] = False
    needs_table: ClassVar[bool] = False
    needs_estimates: ClassVar[bool] = False

    @property
    @abstractmethod
    def unit(self) -> str:
        """Unit of the number; a class variable or a field of a subclass."""

    @property
    @abstractmethod
    def column(self) -> str:
        """Its name in tables of trials, where predicted and measured never share a column."""

    @property
    def needs_training(self) -> bool:
        """Whether the value comes out of an evaluation: `after_training` is overridden."""
        return type(self).after_training is not Objective.after_training

    @property
    def needs_calibration(self) -> bool:
        """Whether its value is learned from networks that the study's device tells of."""
        return self.needs_predictor or self.needs_memory or self.needs_estimates

    @property
    def verified_column(self) -> str:
        """Name of the column with the value of a verified architecture.

        It holds the value after the final training, or the measured one; it is `column` where the
        value is exact.
        """
        if self.needs_training:
            return f"{self.column}_final"
        return self.measured_column or self.column

    def ready(self, facts: Facts) -> bool:
        """Return whether `facts` hold everything that `before_training` needs."""
        needed = (
            (self.needs_predictor, facts.predictor),
            (self.needs_memory, facts.memory),
            (self.needs_table, facts.published_ms),
            (self.needs_estimates, facts.sram and facts.flash),
        )
        return all(fact is not None for needs, fact in needed if needs)

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray | None:
        """Return the values, shape `(n,)`, or `None` where only training can tell."""
        del genotypes, facts
        return None

    def after_training(self, metrics: Mapping[str, float]) -> float:
        """Return the value from an evaluation's metrics."""
        raise KeyError(f"{self.column} is known before training; got metrics {sorted(metrics)}")


_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_CONSTRAINT = re.compile(rf"\s*([a-z_][a-z0-9_]*)\s*(<=|>=|<|>)\s*({_NUMBER})\s*")


@dataclass(frozen=True)
class Constraint:
    """A limit on an objective, such as `latency_ms <= 2`.

    Attributes:
        objective: Name of the objective.
        relation: One of `<=`, `<`, `>=`, `>`.
        limit: In the objective's unit.
    """

    objective: str
    relation: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a constraint from `OBJECTIVE RELATION NUMBER`.

        Raises:
            ConfigError: The text has another form.
        """
        match = _CONSTRAINT.fullmatch(text)
        if match is None or math.isinf(float(match[3])):
            expected = "OBJECTIVE <=|<|>=|> NUMBER"
            raise ConfigError("search.constraints", text, expected, 'write "latency_ms <= 2"')
        return cls(match[1], match[2], float(match[3]))

    def met(self, value: float) -> bool:
        """Return whether `value` keeps the limit; a value that is not a number does not."""
        return self.violation(value) <= 0

    def violation(self, value: Values) -> Values:
        """Return by how much a value, or each of several, breaks the limit.

        It is 0 or less exactly where the limit is kept, and NaN where the value is.
        """
        if self.relation == "<":
            return value - math.nextafter(self.limit, -math.inf)
        if self.relation == ">":
            return math.nextafter(self.limit, math.inf) - value
        return value - self.limit if self.relation == "<=" else self.limit - value

    def __str__(self) -> str:
        """Return the text from which `parse` reads an equal constraint."""
        short = f"{self.limit:g}"
        limit = short if float(short) == self.limit else repr(self.limit)
        return f"{self.objective} {self.relation} {limit}"
