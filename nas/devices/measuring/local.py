"""What devices of this machine have in common: a runtime, timed in a process of its own."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.errors import ConfigError, DeviceError, ExportError
from nas.core.host import usable_cores
from nas.core.lease import measuring
from nas.core.measurement import QUIET_PERCENTILE, Device, ImageArray, Measurement
from nas.devices import runtimes
from nas.devices.measuring.environment import cpu_model, describe_host, load_average
from nas.devices.measuring.process import MeasuringProcess
from nas.devices.measuring.protocol import ProtocolSettings, Rounds, relative_ci, run_rounds
from nas.devices.measuring.runtime import Runtime

if TYPE_CHECKING:
    from torch import nn

_MEMORY_RUNS = 10
_LONGEST_INFERENCE_SECONDS = 10.0
_ENERGY_SECONDS = 1.0
"""RAPL's counters move every millisecond, NVML's every tenth of a second."""
_SAMPLE = "median ms per inference of one block, its first inference not counted"
_INTERVAL = "95 %, order statistics of the samples"
_INPUT = "standard normal float32, seed 0, in place before the run"


@dataclass(frozen=True)
class _Timing:
    rounds: Rounds
    inferences: list[int]
    environment: dict[str, Any]
    facts: list[dict[str, Any]]
    energy: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class LocalDevice(ProtocolSettings, Device):
    """Runs networks in a runtime on this machine, in a process of their own.

    A setting that only some runtimes have is `None` for the runtime's own default; a value is
    refused where the runtime does not have it.

    Attributes:
        runtime: Name of a runtime in `nas.devices.runtimes`.
        threads: Threads that work on one operator.
        precision: Of weights and activations: `fp32`, or `int8` where the runtime has it.
        provider: What the runtime runs networks on: a provider of ONNX Runtime, a plugin of
            OpenVINO.
        allow_spinning: Whether ONNX Runtime's idle threads wait busily.
        graph_optimization: ONNX Runtime's level: `disable`, `basic`, `extended` or `all`.
        compiled: Whether PyTorch compiles networks or runs them eagerly.
        timeout_seconds: How long the measuring process may stay silent, beyond the work that it
            was asked for, before it is taken for hung.
    """

    label: ClassVar[str]
    """The name that the device is registered under."""

    runtime: str = "onnxruntime"
    threads: int = 1
    precision: str = "fp32"
    provider: str | None = None
    allow_spinning: bool | None = None
    graph_optimization: str | None = None
    compiled: bool | None = None
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of its range, or the runtime does not have it.
        """
        super().__post_init__()
        if not self.timeout_seconds > 0:
            raise ConfigError("device.timeout_seconds", self.timeout_seconds, "a number above 0")
        known = {field.name for field in dataclasses.fields(runtimes.component(self.runtime))}
        for name, value in self._given.items():
            if name not in known:
                expected = f"nothing, because runtime {self.runtime!r} has no such setting"
                raise ConfigError(f"device.{name}", value, expected)
        runtimes.get(self.runtime, **self._given)  # its own checks speak at once

    @property
    def _given(self) -> dict[str, Any]:
        """What is given to the runtime."""
        own = {field.name for field in dataclasses.fields(ProtocolSettings)}
        own |= {"runtime", "timeout_seconds"}
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {n: value for n, value in values.items() if n not in own and value is not None}

    @cached_property
    def _runtime(self) -> Runtime:
        return runtimes.get(self.runtime, **self._given)

    @property
    def takes_onnx(self) -> bool:
        """Whether `prepare` takes ONNX files; see `Device.takes_onnx`."""
        return self._runtime.takes_onnx

    @property
    def quantises(self) -> bool:
        """Whether the precision is not the network's own; see `Device.quantises`."""
        return self.precision != "fp32"

    @property
    def in_fp32(self) -> LocalDevice:
        """The device with precision `fp32`; see `Device.in_fp32`."""
        return dataclasses.replace(self, precision="fp32") if self.quantises else self

    def prepare(
        self,
        models: Sequence[nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[Path]:
        """Bring networks into the runtime's form; see `Device.prepare`."""
        files = []
        for index, model in enumerate(models):
            about = str(_file(model)) if isinstance(model, Path) else f"network {index}"
            try:
                file = self._runtime.prepare(model, input_shape, folder / str(index), images)
            except ExportError as error:
                raise DeviceError(f"{about}: {error}") from error
            files.append(file)
        return files

    def measure_files(
        self,
        files: Sequence[Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        """Time prepared files, interleaved; see `Device.measure_files`.

        Networks are loaded first; then the host's lease is waited for, and all warming up and
        timing happens under it. Memory is measured before, in one new process a network: it does
        not depend on what else the host does.
        """
        if not files:
            return []
        if seconds_per_model is not None:
            limited = dataclasses.replace(self, max_seconds_per_model=seconds_per_model)
            return limited.measure_files(files, input_shape, memory=memory, seed=seed)
        self._runtime.version()
        sizes_mb = [_file(path).stat().st_size / 1e6 for path in files]
        peaks = [self._peak(path, input_shape) if memory else {} for path in files]
        timing = self._time(files, input_shape, seed, energy=memory)
        return [
            Measurement(
                samples_ms=tuple(samples_ms),
                relative_ci=relative_ci(samples_ms),
                peak_memory_mb=peaks[i].get("mb"),
                protocol=self._protocol(timing, i, seed),
                device=self._device(),
                environment=timing.environment
                | timing.facts[i]
                | {
                    "memory_method": peaks[i].get("method"),
                    "energy_source": timing.energy[i].get("source"),
                },
                model_size_mb=sizes_mb[i],
                energy_mj=timing.energy[i].get("mj"),
                loading_memory_mb=peaks[i].get("loading_mb"),
            )
            for i, samples_ms in enumerate(timing.rounds.samples_ms)
        ]

    def outputs(self, file: Path, batches: Iterable[ImageArray]) -> Iterator[ImageArray]:
        """Run a prepared network in a process of its own; see `Device.outputs`."""
        with self._process() as process, tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            process.ask("start", about=self.runtime, **self._start())
            files = {"images": f"{name}/images.npy", "outputs": f"{name}/outputs.npy"}
            for number, batch in enumerate(batches):
                if number == 0:
                    _, channels, height, width = batch.shape
                    self._load(process, _file(file), (channels, height, width))
                np.save(files["images"], batch)
                seconds = len(batch) * _LONGEST_INFERENCE_SECONDS
                process.ask("outputs", about=str(file), work_seconds=seconds, index=0, **files)
                yield np.load(files["outputs"], allow_pickle=False)

    def identity(self) -> dict[str, Any]:
        """Return settings, hardware and runtime; see `Device.identity`."""
        return self._device() | self._protocol_settings() | self._hardware() | self._version()

    def _hardware(self) -> dict[str, Any]:
        facts = {"cpu_model": cpu_model(), "logical_cores": os.cpu_count()}
        # Left out where all threads have a core: then it makes no difference how many there are.
        if (cores := usable_cores()) < self.threads:
            facts["usable_cores"] = cores
        return facts

    def _version(self) -> dict[str, Any]:
        return {"runtime_version": self._runtime.version()}

    def _device(self) -> dict[str, Any]:
        return {"name": self.label, "runtime": self.runtime} | self._runtime.record()

    def _time(
        self, files: Sequence[Path], input_shape: tuple[int, int, int], seed: int, *, energy: bool
    ) -> _Timing:
        with self._process() as process:
            started = process.ask("start", about=self.runtime, **self._start())
            environment = self._version() | {"runtime": self.runtime} | started
            facts = [self._load(process, path, input_shape) for path in files]
            process.ask("load_sentinel", about="sentinel")
            about = [*map(str, files), "sentinel"]
            with measuring():
                environment |= describe_host() | {"load_before": load_average()}
                inferences = [self._warm_up(process, i, name) for i, name in enumerate(about)]

                def run_block(index: int) -> float:
                    arguments = {"index": index, "inferences": inferences[index]}
                    return float(process.ask("block", about=about[index], **arguments)["ms"])

                rounds = run_rounds(run_block, inferences, self, seed=seed)
                quiet_ms = float(np.percentile(rounds.sentinel_ms, QUIET_PERCENTILE))
                environment |= {"load_after": load_average(), "sentinel_ms": quiet_ms}
                spent = [
                    self._energy(process, i, about[i]) if energy else {} for i in range(len(files))
                ]
        return _Timing(rounds, inferences[:-1], environment, facts, spent)

    def _process(self) -> MeasuringProcess:
        return MeasuringProcess(timeout_seconds=self.timeout_seconds)

    def _start(self) -> dict[str, Any]:
        module, settings = type(self._runtime).__module__, dataclasses.asdict(self._runtime)
        return {"module": module, "name": self.runtime, "settings": settings}

    def _load(
        self, process: MeasuringProcess, path: Path, input_shape: tuple[int, int, int]
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {"path": str(path), "input_shape": list(input_shape)}
        answer: dict[str, Any] = process.ask("load", about=str(path), **arguments)
        return answer

    def _warm_up(self, process: MeasuringProcess, index: int, about: str) -> int:
        seconds = self.warmup_seconds
        arguments: dict[str, Any] = {"index": index, "seconds": seconds, "block_ms": self.block_ms}
        answer = process.ask("warm_up", about=about, work_seconds=seconds, **arguments)
        return int(answer["inferences"])

    def _energy(self, process: MeasuringProcess, index: int, about: str) -> dict[str, Any]:
        seconds, provider = _ENERGY_SECONDS, self._runtime.record().get("provider", "cpu")
        arguments: dict[str, Any] = {"index": index, "seconds": seconds, "provider": provider}
        answer: dict[str, Any] = process.ask(
            "energy", about=about, work_seconds=seconds, **arguments
        )
        return answer

    def _peak(self, path: Path, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        with self._process() as process:
            process.ask("start", about=self.runtime, **self._start())
            process.ask("load_sentinel", about="sentinel")
            answer: dict[str, Any] = process.ask(
                "peak_memory",
                about=str(path),
                path=str(path),
                input_shape=list(input_shape),
                runs=_MEMORY_RUNS,
            )
        return answer

    def _protocol_settings(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(ProtocolSettings)]
        return {name: getattr(self, name) for name in names}

    def _protocol(self, timing: _Timing, index: int, seed: int) -> dict[str, Any]:
        return self._protocol_settings() | {
            "sample": _SAMPLE,
            "latency_percentile": QUIET_PERCENTILE,
            "interval": _INTERVAL,
            "input": _INPUT,
            "seed": seed,
            "networks": len(timing.inferences),
            "rounds": timing.rounds.kept,
            "rounds_repeated": timing.rounds.repeated,
            "inferences_per_block": timing.inferences[index],
        }


def _file(path: Path) -> Path:
    if not path.is_file():
        raise DeviceError(f"{path}: got no such file, expected a network")
    return path
