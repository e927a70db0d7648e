"""What devices have in common whose hardware is on another machine."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import devices
from nas.core.errors import ConfigError, DeviceError
from nas.core.measurement import Device, ImageArray, Measurement
from nas.core.registry import nested
from nas.devices.agent.protocol import JobRequest, ModelFile, one_line
from nas.devices.cpu import Cpu
from nas.devices.measuring.local import LocalDevice

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Device):
    """A device of another machine: networks are prepared here and measured there.

    Attributes:
        target: The device of the other machine.
        job_seconds: After which a job there is ended.
    """

    target: Device = nested(devices.registry, "cpu")
    job_seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of its range.
        """
        if isinstance(self.target, Elsewhere):
            got = devices.registry.settings(self.target)["name"]
            raise ConfigError(
                "device.target.name", got, "a device of the machine itself, such as cpu"
            )
        if not self.job_seconds > 0:
            raise ConfigError("device.job_seconds", self.job_seconds, "a number above 0")

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the other machine is, for messages."""

    @abstractmethod
    def _run(self, request: JobRequest, files: Sequence[Path]) -> Any:
        """Have a job done there and return what `run_job` returned.

        Raises:
            DeviceError: It was not done.
        """

    @property
    def takes_onnx(self) -> bool:
        """Whether the device there does; see `Device.takes_onnx`."""
        return self.target.takes_onnx

    @property
    def quantises(self) -> bool:
        """Whether the device there does; see `Device.quantises`."""
        return self.target.quantises

    @property
    def in_fp32(self) -> Elsewhere:
        """The device there with precision `fp32`; see `Device.in_fp32`."""
        return dataclasses.replace(self, target=self.target.in_fp32) if self.quantises else self

    def prepare(
        self,
        models: Sequence[nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[Path]:
        """Prepare networks here, as the device there needs them; see `Device.prepare`."""
        return self.target.prepare(models, input_shape, folder, images)

    def measure_files(
        self,
        files: Sequence[Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        """Send networks there and have them measured; see `Device.measure_files`."""
        if not files:
            return []
        try:
            described = tuple(ModelFile.of(path) for path in files)
        except OSError as error:
            name = error.filename
            raise DeviceError(f"{name}: cannot be read ({error.strerror})") from error
        request = JobRequest(
            device=devices.registry.settings(self.target),
            files=described,
            input_shape=input_shape,
            memory=memory,
            seed=seed,
            seconds_per_model=seconds_per_model,
            limit_seconds=self.job_seconds,
        )
        answer = self._answer(request, files)
        try:
            taken = [Measurement.from_dict(record) for record in answer["measurements"]]
            whole = len(taken) == len(files) and all(m.latency_ms > 0 for m in taken)
        except (KeyError, TypeError, ValueError, IndexError):
            whole = False
        if not whole:
            shown = one_line(repr(answer), 80)
            expected = f"expected {len(files)} measurements: is it another release there?"
            raise DeviceError(f"{self.place}: got {shown}, {expected}")
        return taken

    def outputs(self, file: Path, batches: Iterable[ImageArray]) -> Iterator[ImageArray]:
        """Run a prepared network on this host's processor; see `Device.outputs`.

        Images are not sent to the other machine. ONNX files are run by ONNX Runtime, which comes
        with the project, others by the target's runtime.
        """
        target = self.target
        if isinstance(target, LocalDevice):
            runtime = "onnxruntime" if file.suffix == ".onnx" else target.runtime
            target = Cpu(runtime=runtime, threads=target.threads, precision=target.precision)
        return target.outputs(file, batches)

    @property
    def runs_outputs(self) -> str:
        """This host; see `Device.runs_outputs`."""
        return "the processor of the study's host"

    def identity(self) -> dict[str, Any]:
        """Return what the device there says of itself, which is asked once.

        Where it stands is no part of it: the same board at another address is the same device.
        """
        return copy.deepcopy(self._identity)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        settings = devices.registry.settings(self.target)
        answer = self._answer(JobRequest(device=settings, limit_seconds=self.job_seconds), [])
        if not isinstance(answer.get("identity"), dict):
            shown = one_line(repr(answer), 80)
            expected = "expected a device's identity: is it another release there?"
            raise DeviceError(f"{self.place}: got {shown}, {expected}")
        return dict(answer["identity"])

    def _answer(self, request: JobRequest, files: Sequence[Path]) -> dict[str, Any]:
        answer = self._run(request, files)
        if not isinstance(answer, dict):
            raise DeviceError(f"{self.place}: got {one_line(repr(answer), 80)}, expected an object")
        if "error" in answer:
            line = one_line(answer["error"])
            # There a file is known by its place only.
            for index, file in enumerate(request.files):
                if line.startswith(f"{file.name(index)}:"):
                    line = f"{files[index]}{line.removeprefix(file.name(index))}"
            raise DeviceError(f"{self.place}: {line}")
        return answer
