"""What a runtime is: a way of preparing, loading and running networks, each in a file of its own.

Preparing happens where networks are made and may use everything. All else happens where the
hardware is, with NumPy and the runtime's own package only.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.errors import ConfigError, DeviceError, ExportError, one_line
from nas.core.measurement import ImageArray

if TYPE_CHECKING:
    from torch import nn

INPUT_SEED = 0
SENTINEL_SHAPE = (16, 32, 32)
"""`(channels, height, width)` of the sentinel's input."""


class ModelError(Exception):
    """A model file cannot be loaded or run, or is not what was expected."""


def random_images(shape: tuple[int, ...]) -> ImageArray:
    """Return standard normal images, the same ones every time."""
    return np.random.default_rng(INPUT_SEED).standard_normal(shape, dtype=np.float32)


class LoadedNetwork(ABC):
    """One network, ready to run, its input in place.

    Input and output stay where they are between runs, as far as the runtime lets them: the copies
    that a caller makes belong to the caller and not to the network.
    """

    @abstractmethod
    def infer(self) -> None:
        """Run one inference of the input in place, which is what is timed."""

    @abstractmethod
    def run(self, images: ImageArray) -> ImageArray:
        """Return the network's output for images of the input's shape and type."""

    @abstractmethod
    def inspect(self) -> dict[str, Any]:
        """Say what really runs: `provider`, `threads` and what else the runtime tells.

        Raises:
            ModelError: It is another provider, or another precision, than the one asked for.
        """

    def time_ms(self) -> float:
        """Run one inference; return its milliseconds."""
        start = time.perf_counter_ns()
        self.infer()
        return (time.perf_counter_ns() - start) / 1e6

    def run_for(self, seconds: float) -> list[float]:
        """Run for `seconds`, two inferences at least; return the milliseconds of each."""
        times_ms: list[float] = []
        deadline = time.perf_counter() + seconds
        while len(times_ms) < 2 or time.perf_counter() < deadline:
            times_ms.append(self.time_ms())
        return times_ms

    def warm_up(self, seconds: float, block_ms: float) -> int:
        """Run for `seconds`; return how many inferences fill a block of `block_ms`."""
        return max(1, math.ceil(block_ms / statistics.median(self.run_for(seconds))))

    def block_ms(self, inferences: int) -> float:
        """Return the median time of `inferences` inferences, in milliseconds.

        One more inference goes before them untimed: after another network has run it takes twice
        as long, because the caches hold the other one's weights.
        """
        self.infer()
        return statistics.median(self.time_ms() for _ in range(inferences))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a device sets for every runtime.

    Attributes:
        threads: Threads that work on one operator.
        precision: Of weights and activations; one of the runtime's `precisions`.
        layers: Of every layer with weights, in the order in which they run, its precision; one of
            `nas.network.compact.PRECISIONS`. Empty where all have that of the network.
    """

    threads: int = 1
    precision: str = "fp32"
    layers: tuple[str, ...] = ()

    @property
    def quantises(self) -> bool:
        """Whether anything has fewer bits than fp32."""
        return bool(self.layers) or self.precision != "fp32"


@dataclass(frozen=True, kw_only=True)
class Runtime(ABC):
    """Runs networks; its fields are the settings that it alone has."""

    package: ClassVar[str]
    """Import name of what it needs."""
    extra: ClassVar[str | None] = None
    """Extra of this project that installs it; `None` for a package of no extra."""
    takes: ClassVar[str] = "onnx"
    """Form of its files, which is their suffix as well."""
    takes_onnx: ClassVar[bool] = True
    """Whether `prepare` takes ONNX files; else it takes networks only."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    mixes_precisions: ClassVar[bool] = False
    """Whether layers may have precisions of their own."""
    constants: ClassVar[dict[str, Any]] = {}
    """What else bears on speed and is always set the same way; recorded with the settings."""

    def check(self, execution: Execution) -> None:
        """Check that the runtime can do what a device sets.

        Raises:
            ConfigError: It cannot.
        """
        if execution.threads < 1:
            raise ConfigError("device.threads", execution.threads, "1 or more")
        if execution.precision not in self.precisions:
            expected = f"one of {', '.join(self.precisions)} in this runtime"
            raise ConfigError("device.precision", execution.precision, expected)
        if execution.layers and not self.mixes_precisions:
            expected = "one of all layers in this runtime"
            raise ConfigError("precision of layers", ", ".join(set(execution.layers)), expected)

    def chosen(self, execution: Execution, choices: Mapping[str, Any]) -> tuple[Runtime, Execution]:
        """Return the settings of a network that has choices of its own; see `Deployable`.

        Raises:
            DeviceError: A choice is unknown, or its value cannot be used.
        """
        own = {each.name for each in fields(self)}
        of_execution = {"precision", "layers"}
        for name, value in choices.items():
            if name not in own | of_execution:
                expected = ", ".join(sorted(own | of_execution))
                raise DeviceError(f"choice {name!r}: got {value!r}, expected one of {expected}")
        try:
            runtime = replace(self, **{n: value for n, value in choices.items() if n in own})
            given = {n: value for n, value in choices.items() if n in of_execution}
            execution = replace(execution, **given)
            runtime.check(execution)
        except ConfigError as error:
            raise DeviceError(str(error)) from error
        return runtime, execution

    @abstractmethod
    def load(self, path: Path, images: ImageArray, execution: Execution) -> LoadedNetwork:
        """Load a prepared network.

        What the runtime's package raises may pass: who calls it knows `failures`.

        Args:
            path: Of the file, whatever its suffix, or of the folder of several.
            images: Its input, one float32 image: `(1, channels, height, width)`.
            execution: Threads and precision.

        Raises:
            ModelError: Its input is another one, or it is not run as it was asked for.
        """

    def prepare(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        images: ImageArray | None,
        execution: Execution,
    ) -> Path:
        """Bring a network into the form that `load` takes.

        Args:
            model: A network, or the path of an ONNX file; never a file that `load` takes.
            input_shape: `(channels, height, width)`.
            stem: Of the files to write, to which suffixes are added.
            images: For the ranges of a quantised network's activations; see `Device.prepare`.
            execution: Threads and precision.

        Returns:
            The path of a file, or of a folder of several.

        Raises:
            ExportError: It cannot be converted.
        """
        if isinstance(model, Path):
            path = model
        else:
            # PyTorch takes seconds to load, which timing an ONNX file need not wait for.
            from nas.network.onnx import export_onnx

            path = export_onnx(model, input_shape, stem.with_suffix(".onnx"))
        if not execution.quantises:
            return path
        from nas.network.quantisation import quantise

        name = "mixed" if execution.layers else execution.precision
        quantised = stem.with_suffix(f".{name}.onnx")
        return quantise(path, input_shape, quantised, images, execution.layers)

    def onnx_of(
        self,
        model: nn.Module | Path,
        input_shape: tuple[int, int, int],
        stem: Path,
        execution: Execution,
    ) -> Path:
        """Return the ONNX file of a network, for a converter that takes no other images.

        Arguments and errors are those of `prepare`.
        """
        from nas.network.onnx import image_shape

        path = Runtime.prepare(self, model, input_shape, stem, None, execution)
        if (shape := image_shape(path)) != input_shape:  # converters take a free size for 1
            raise ExportError(f"takes images of shape {list(shape)}, expected {list(input_shape)}")
        return path

    def sentinel(self, execution: Execution) -> LoadedNetwork:
        """Load the sentinel: a small fixed network that tells the machine's pace."""
        path = Path(__file__).with_name(f"sentinel.{self.takes}")
        return self.load(path, np.ones((1, *SENTINEL_SHAPE), np.float32), execution)

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values."""
        return asdict(self) | self.constants

    def start(self) -> None:
        """Make sure that networks can be loaded at all.

        Raises:
            ModelError: The package cannot be imported, or does not have the provider.
        """
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            raise ModelError(f"{self.package} cannot be imported ({one_line(error)})") from error
        provider, available = self.record().get("provider", "cpu"), self.providers()
        if provider not in available:
            found = f"which the installed {self.package} {self.version()} finds on this machine"
            raise ModelError(
                f"device.runtime.provider: got {provider!r}, expected one of "
                f"{', '.join(available)}, {found}"
            )

    @contextlib.contextmanager
    def failures(self, doing: str) -> Iterator[None]:
        """Turn whatever the package raises, which has no common base, into a `ModelError`.

        Args:
            doing: What cannot be done with the network then: `load` or `run`.
        """
        try:
            yield
        except ModelError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {one_line(error)}"
            raise ModelError(f"{self.package} cannot {doing} it ({said})") from error

    @classmethod
    def providers(cls) -> tuple[str, ...]:
        """Return what the installed package can run networks on; imports the package."""
        return ("cpu",)

    @classmethod
    def version(cls) -> str:
        """Return the version of the installed package.

        Raises:
            DeviceError: It is not installed.
        """
        return installed_version(cls.package, cls.extra)


def installed_version(package: str, extra: str | None) -> str:
    """Return the version of a package that is imported as `package`.

    Raises:
        DeviceError: It is not installed; names what pip installs, the `extra` of ours if any.
    """
    found = _installed_version(package)
    if found is None:
        name = package if extra is None else f"hwnas[{extra}]"
        raise DeviceError(f"{package} is not installed; pip install '{name}'")
    return found


@functools.cache
def _installed_version(package: str) -> str | None:
    # The same package comes in several distributions (`onnxruntime`, `onnxruntime-gpu`, ...).
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        owners = importlib.metadata.packages_distributions().get(package)
        return importlib.metadata.version(owners[0]) if owners else "unknown"


def check_input(
    inputs: Sequence[tuple[str, Sequence[Any], str]], images: ImageArray, kind: str
) -> None:
    """Check that a network takes one float32 image.

    Args:
        inputs: Name, shape and type of every input; a size that is not fixed is no integer.
        images: What it will be given.
        kind: The runtime's word for float32.

    Raises:
        ModelError: It takes something else.
    """
    expected = list(images.shape)
    if len(inputs) != 1:
        names = ", ".join(repr(name) for name, _, _ in inputs) or "none"
        raise ModelError(f"has {len(inputs)} inputs ({names}), expected one of shape {expected}")
    ((name, sizes, got),) = inputs
    shape = list(sizes)
    if not all(isinstance(size, int) for size in shape):
        raise ModelError(
            f"input {name!r} has the dynamic shape {shape}, expected the fixed shape "
            f"{expected}; export it with fixed sizes and batch 1"
        )
    if shape != expected:
        raise ModelError(f"input {name!r} has shape {shape}, expected {expected}")
    if got != kind:
        raise ModelError(f"input {name!r} is a {got}, expected {kind}")
