"""The objectives of the package: metrics of the task, latency, memory and counted costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.objectives import register


@register("error")
@dataclass(frozen=True, kw_only=True)
class TaskMetric(Objective):
    """A metric of the task on the validation split; by default `error`, which every task has.

    Attributes:
        column: Name of the metric; see `Task.metrics`.
        unit: Of the metric.
    """

    column: str = "error"
    unit: str = "%"

    def after_training(self, metrics: Mapping[str, float]) -> float:
        """Return the metric's value on the validation split."""
        return metrics[self.column]


@register("latency_ms")
@dataclass(frozen=True, kw_only=True)
class LatencyMs(Objective):
    """Latency of one inference on the study's device, as the calibrated predictor sees it."""

    unit: ClassVar[str] = "ms"
    column: ClassVar[str] = "latency_ms_predicted"
    measured_column: ClassVar[str] = "latency_ms_measured"
    needs_predictor: ClassVar[bool] = True

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the predicted milliseconds, shape `(n,)`."""
        if facts.predictor is None:
            raise TypeError("latency_ms needs a calibrated predictor")
        return facts.predictor.predict(genotypes).mean_ms


@register("latency_ms_published")
@dataclass(frozen=True, kw_only=True)
class LatencyMsPublished(Objective):
    """Latency of one inference as a published table has it: exact, and others' work.

    Where a study's device is a table this takes the place of `latency_ms`.
    """

    unit: ClassVar[str] = "ms"
    column: ClassVar[str] = "latency_ms_published"
    needs_table: ClassVar[bool] = True

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the published milliseconds, shape `(n,)`."""
        if facts.published_ms is None:
            raise TypeError("latency_ms_published needs a table of published latencies")
        return facts.published_ms(genotypes)


@register("peak_memory_mb")
@dataclass(frozen=True, kw_only=True)
class PeakMemoryMb(Objective):
    """Peak memory above the runtime's own on the study's device, as calibrated."""

    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "peak_memory_mb_predicted"
    needs_memory: ClassVar[bool] = True

    @property
    def verified_column(self) -> str:
        """The measured one; see `Objective.verified_column`."""
        return "peak_memory_mb_measured"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the predicted megabytes (10^6 bytes), shape `(n,)`."""
        if facts.memory is None:
            raise TypeError("peak_memory_mb needs a calibrated predictor of memory")
        return facts.memory.predict_mb(genotypes)


class _Counted(Objective):
    """A sum of counted costs; `costs` names their columns."""

    costs: ClassVar[tuple[str, ...]]

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        """Return the sum in the objective's unit, shape `(n,)`."""
        table = facts.costs(genotypes)
        return table[list(self.costs)].sum(axis=1, skipna=False).to_numpy(float)


@register("counted_memory_mb")
@dataclass(frozen=True, kw_only=True)
class CountedMemoryMb(_Counted):
    """Memory of one inference: weights and the most activations alive at once, counted.

    In 10^6 bytes. It needs no device, and it is less than what a runtime takes.
    """

    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "counted_memory_mb"
    costs: ClassVar[tuple[str, ...]] = ("model_size_mb", "peak_activation_mb")


@register("model_size_mb")
@dataclass(frozen=True, kw_only=True)
class ModelSizeMb(_Counted):
    """Size of the file that is deployed (10^6 bytes), predicted as that of its tensors.

    Each of them is counted in the bits that it has.
    """

    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "model_size_mb_predicted"
    costs: ClassVar[tuple[str, ...]] = ("model_size_mb",)

    @property
    def verified_column(self) -> str:
        """That of the file; see `Objective.verified_column`."""
        return "model_size_mb"


@register("stored_size_mb")
@dataclass(frozen=True, kw_only=True)
class StoredSizeMb(Objective):
    """Size of a network's tensors in a compressed file (zlib, 10^6 bytes).

    Zero and shared weights take little room there.
    """

    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "stored_size_mb"

    def after_training(self, metrics: Mapping[str, float]) -> float:
        """Return the size of the trained network."""
        return metrics[self.column]


@register("params_m")
@dataclass(frozen=True, kw_only=True)
class ParamsM(_Counted):
    """Trainable parameters, in millions."""

    unit: ClassVar[str] = "10^6"
    column: ClassVar[str] = "params_m"
    costs: ClassVar[tuple[str, ...]] = ("params_m",)


@register("macs_m")
@dataclass(frozen=True, kw_only=True)
class MacsM(_Counted):
    """Multiply-accumulate operations of one inference, in millions."""

    unit: ClassVar[str] = "10^6"
    column: ClassVar[str] = "macs_m"
    costs: ClassVar[tuple[str, ...]] = ("macs_m",)
