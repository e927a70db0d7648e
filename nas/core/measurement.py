"""Measurements, and the device that they are taken on."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nas.core.files import temporary_folder
from nas.core.prediction import FloatArray
from nas.core.records import NUMBER, check_kinds
from nas.core.space import Genotype

if TYPE_CHECKING:
    from torch import nn

ImageArray: TypeAlias = npt.NDArray[np.float32]

FP32, INT8 = "fp32", "int8"
"""Precisions of what has not been quantised, and of 8-bit weights and activations."""

QUIET_PERCENTILE = 10
"""The percentile of the samples that is reported as a network's own latency."""
CALIBRATION_KEY = "hwnas.calibration"
"""Metadata of a quantised ONNX file that says which images it was calibrated with."""
UNKNOWN_CALIBRATION = "not said in the file"
"""What a measurement says of a quantised file from elsewhere."""


KILOBYTE = 1024
"""Bytes of a kilobyte where microcontrollers are described: 320 KB of SRAM are 327,680 bytes."""


def kilobytes(megabytes: float | None) -> float | None:
    """Return 10^6 bytes as kilobytes of a microcontroller."""
    return None if megabytes is None else 1e6 * megabytes / KILOBYTE


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The samples of one latency and memory run, or what a tool estimates without the hardware.

    Attributes:
        samples_ms: Milliseconds per inference of every timed block, in the order taken; the one
            that a tool says, or none where it says none.
        relative_ci: Half width of the 95 % confidence interval of `latency_ms`, relative to it.
        peak_memory_mb: Rise of the process's high-water mark (10^6 bytes) while the network was
            loaded and run, above the runtime's own; `None` where it was not measured.
        protocol: The measuring protocol's settings.
        device: The device's settings.
        environment: Processor, operating system, load, runtime version, provider and threads that
            ran.
        model_size_mb: Size of the files that were run (10^6 bytes): what is deployed.
        energy_mj: Millijoules per inference, as a counter of the machine tells (idle power
            included); `None` where there is none, or it was not read.
        loading_memory_mb: `peak_memory_mb` as it was when the network was loaded and had not run.
        flash_mb: Flash that a microcontroller needs (10^6 bytes), its code's by an estimate; `None`
            of other devices.
        estimated_by: The tool that says all numbers without the hardware; empty where they are
            measured.
    """

    samples_ms: tuple[float, ...]
    relative_ci: float
    peak_memory_mb: float | None
    protocol: dict[str, Any]
    device: dict[str, Any]
    environment: dict[str, Any]
    model_size_mb: float | None = None
    energy_mj: float | None = None
    loading_memory_mb: float | None = None
    flash_mb: float | None = None
    estimated_by: str = ""

    @property
    def latency_ms(self) -> float:
        """The quiet estimate: the percentile `QUIET_PERCENTILE` of the samples; NaN of none."""
        return self._percentile(QUIET_PERCENTILE)

    @property
    def ci_ms(self) -> float:
        """Half width of the 95 % confidence interval of `latency_ms`."""
        return self.relative_ci * self.latency_ms

    @property
    def median_ms(self) -> float:
        """Median of the samples, the machine's other load included."""
        return self._percentile(50)

    @property
    def p95_ms(self) -> float:
        """95th percentile of the samples."""
        return self._percentile(95)

    @property
    def relative_iqr(self) -> float:
        """Interquartile range of the samples, relative to their median."""
        return (self._percentile(75) - self._percentile(25)) / self.median_ms

    def _percentile(self, percentile: float) -> float:
        return float(np.percentile(self.samples_ms, percentile)) if self.samples_ms else math.nan

    @property
    def columns(self) -> dict[str, float | None]:
        """The numbers by their names in tables, where measured and estimated share no column."""
        if self.estimated_by:
            return {
                "latency_ms_estimated": self.latency_ms if self.samples_ms else None,
                "sram_kb_estimated": kilobytes(self.peak_memory_mb),
                "flash_kb_estimated": kilobytes(self.flash_mb),
            }
        return {
            "latency_ms_measured": self.latency_ms,
            "latency_ms_measured_ci": self.ci_ms,
            "latency_ms_median": self.median_ms,
            "latency_ms_p95": self.p95_ms,
            "peak_memory_mb_measured": self.peak_memory_mb,
            "energy_mj_measured": self.energy_mj,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything, the derived figures included, as plain JSON values."""
        derived = ("latency_ms", "median_ms", "p95_ms", "relative_iqr")
        figures = {name: getattr(self, name) for name in derived}
        return figures | dataclasses.asdict(self) | {"samples_ms": list(self.samples_ms)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Measurement:
        """Rebuild a measurement from `to_dict`.

        Raises:
            KeyError: An entry is missing.
            TypeError: An entry is of another type.
        """
        objects = ("protocol", "device", "environment")
        kinds: dict[Any, Any] = {f.name: NUMBER | None for f in dataclasses.fields(cls)}
        kinds |= {"samples_ms": list, "estimated_by": str, **dict.fromkeys(objects, dict)}
        # Which measurements did not have before there were estimates.
        record = {"flash_mb": None, "estimated_by": "", **record}
        check_kinds(record, kinds)
        samples_ms = dict(enumerate(record["samples_ms"]))
        needed = samples_ms if record["estimated_by"] else samples_ms or [0]
        check_kinds(samples_ms, dict.fromkeys(needed, NUMBER))
        fields = {name: record[name] for name in kinds}
        # JSON has no infinities: an interval of few samples has no ends.
        if fields["relative_ci"] is None:
            fields["relative_ci"] = math.inf
        return cls(**(fields | {"samples_ms": tuple(samples_ms.values())}))


@dataclass(frozen=True)
class Deployable:
    """A network and how it is to be deployed.

    Attributes:
        network: The network, or the path of an ONNX file.
        choices: In place of the device's settings for this network alone: `precision`, or a
            setting of the device's runtime.
    """

    network: nn.Module | Path
    choices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedNetwork:
    """A network in the form that a device runs.

    Attributes:
        path: A file, or a folder of several files.
        choices: See `Deployable`.
    """

    path: Path
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """All files of the network, sorted."""
        if not self.path.is_dir():
            return [self.path]
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    @property
    def size_mb(self) -> float:
        """Size of all files together (10^6 bytes)."""
        return sum(path.stat().st_size for path in self.files) / 1e6


class Device(ABC):
    """A place where a network is run and timed: hardware + runtime + threads + precision.

    A measurement has two steps, which need not happen on the same machine: networks are prepared
    where they come from, and the files are measured where the hardware is.
    """

    @abstractmethod
    def prepare(
        self,
        models: Sequence[Deployable | nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[PreparedNetwork]:
        """Bring networks into the form that the device's runtime and precision take.

        Args:
            models: Networks, or paths of ONNX files; a `Deployable` for one with its own choices.
            input_shape: `(channels, height, width)` of one image.
            folder: Where new files may be written.
            images: What a network is given in use, normalised, shape `(n, C, H, W)`: a quantised
                precision takes the ranges of its activations from them. `None` for random ones.

        Raises:
            DeviceError: A network cannot be converted, or has a choice that the device lacks.
        """

    @abstractmethod
    def measure_files(
        self,
        files: Sequence[PreparedNetwork | Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        """Time prepared networks, interleaved, with exclusive use of the device.

        Args:
            files: What `prepare` returned, or the paths of such files.
            input_shape: `(channels, height, width)`; one image at a time is run.
            memory: Whether to measure the peak memory of each as well, and its energy where the
                machine counts it.
            seed: Of the order in which networks are shuffled.
            seconds_per_model: Most seconds of timed inference of each; `None` for the device's own
                setting. Many networks for a calibration need less than the few of a front.

        Raises:
            DeviceError: A network cannot be loaded or run.
        """

    @abstractmethod
    def outputs(
        self, file: PreparedNetwork | Path, batches: Iterable[ImageArray]
    ) -> Iterator[ImageArray]:
        """Run a prepared network as it is deployed, one image at a time.

        Args:
            file: One of those that `prepare` returned, or the path of such a file.
            batches: Normalised images, each batch of shape `(n, C, H, W)`.

        Yields:
            The network's outputs for each batch, shape `(n, num_classes)`.

        Raises:
            DeviceError: The network cannot be loaded or run.
        """

    @property
    def takes_onnx(self) -> bool:
        """Whether `prepare` takes ONNX files; else it takes networks only."""
        return True

    def quantises(self, choices: Mapping[str, Any]) -> bool:
        """Whether `prepare` changes the precision of a network with these `Deployable.choices`."""
        del choices
        return False

    @property
    def published_ms(self) -> Callable[[Sequence[Genotype]], FloatArray] | None:
        """Latencies of genotypes, of a device that is a table; see `Facts.published_ms`.

        Such a device measures nothing.
        """
        return None

    @property
    def published(self) -> Mapping[str, str]:
        """What numbers are that others have published: text by column; empty of one's own."""
        return {}

    @property
    def estimated(self) -> Mapping[str, str]:
        """What a tool estimates without the hardware: text by objective; empty if it is measured.

        Nothing else is known of such a device.
        """
        return {}

    @property
    def times(self) -> bool:
        """Whether it tells how long networks take."""
        return not self.estimated or "latency_ms" in self.estimated

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what makes measurements comparable: settings, hardware, runtime; JSON values."""

    def measure_many(
        self,
        models: Sequence[Deployable | nn.Module | Path],
        input_shape: tuple[int, int, int],
        *,
        images: ImageArray | None = None,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        """Prepare and measure several networks; see `prepare` and `measure_files`."""
        with temporary_folder() as folder:
            files = self.prepare(models, input_shape, folder, images)
            return self.measure_files(
                files, input_shape, memory=memory, seed=seed, seconds_per_model=seconds_per_model
            )

    def measure(
        self, model: Deployable | nn.Module | Path | str, input_shape: Sequence[int]
    ) -> Measurement:
        """Time one network and measure its peak memory; see `measure_many`."""
        model = Path(model) if isinstance(model, str) else model
        channels, height, width = input_shape
        return self.measure_many([model], (channels, height, width), memory=True)[0]
