"""What all devices that measure have in common: a runtime, timed in a process of its own."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import nas
from nas.core.errors import ConfigError, DeviceError, ExportError
from nas.core.measurement import (
    QUIET_PERCENTILE,
    Deployable,
    Device,
    ImageArray,
    Measurement,
    PreparedNetwork,
)
from nas.core.registry import nested
from nas.devices import runtimes
from nas.devices.measuring.environment import hardware
from nas.devices.measuring.process import MeasuringProcess
from nas.devices.measuring.protocol import ProtocolSettings, Rounds, relative_ci, run_rounds
from nas.devices.measuring.runtime import Execution, Runtime

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
class ProcessDevice(ProtocolSettings, Device):
    """Runs networks in a runtime, in a process of their own, on this machine or on another one.

    Attributes:
        runtime: A runtime of `nas.devices.runtimes`, with the settings that it alone has.
        threads: Threads that work on one operator.
        precision: Of weights and activations: `fp32`, or `int8` where the runtime has it.
        timeout_seconds: How long the measuring process may stay silent, beyond the work that it
            was asked for, before it is taken for hung.
    """

    label: ClassVar[str]
    """The name that the device is registered under."""
    here: ClassVar[bool] = True
    """Whether the process runs on this machine."""

    runtime: Runtime = nested(runtimes.registry, "onnxruntime")
    threads: int = 1
    precision: str = "fp32"
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of its range, or the runtime cannot do it.
        """
        super().__post_init__()
        if not self.timeout_seconds > 0:
            raise ConfigError("device.timeout_seconds", self.timeout_seconds, "a number above 0")
        self.runtime.check(self._execution)

    @property
    def _execution(self) -> Execution:
        return Execution(threads=self.threads, precision=self.precision)

    @cached_property
    def _runtime_name(self) -> str:
        return str(runtimes.registry.settings(self.runtime)["name"])

    @property
    def _provider(self) -> str:
        return str(self.runtime.record().get("provider", "cpu"))

    @property
    def takes_onnx(self) -> bool:
        return self.runtime.takes_onnx

    @property
    def quantises(self) -> bool:
        return self.precision != "fp32"

    @property
    def in_fp32(self) -> ProcessDevice:
        """The device with precision `fp32`; see `Device.in_fp32`."""
        return dataclasses.replace(self, precision="fp32") if self.quantises else self

    def prepare(
        self,
        models: Sequence[Deployable | nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[PreparedNetwork]:
        prepared = []
        for index, model in enumerate(models):
            given = model if isinstance(model, Deployable) else Deployable(model)
            network = given.network
            about = str(network) if isinstance(network, Path) else f"network {index}"
            if isinstance(network, Path) and not network.is_file():
                raise DeviceError(f"{about}: got no such file, expected a network")
            try:
                runtime, execution = self.runtime.chosen(self._execution, given.choices)
                path = runtime.prepare(network, input_shape, folder / str(index), images, execution)
            except (ExportError, DeviceError) as error:
                raise DeviceError(f"{about}: {error}") from error
            prepared.append(PreparedNetwork(path, given.choices))
        return prepared

    def measure_files(
        self,
        files: Sequence[PreparedNetwork | Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        """Time prepared files, interleaved; see `Device.measure_files`.

        Networks are loaded first; then the lease of the machine is waited for, and all warming up
        and timing happens under it. Memory is measured before, in one new process a network: it
        does not depend on what else the machine does.
        """
        if not files:
            return []
        if seconds_per_model is not None:
            limited = dataclasses.replace(self, max_seconds_per_model=seconds_per_model)
            return limited.measure_files(files, input_shape, memory=memory, seed=seed)
        networks = [_prepared(file) for file in files]
        self._version()  # which fails where the runtime is missing
        peaks = [self._peak(each, input_shape) if memory else {} for each in networks]
        timing = self._time(networks, input_shape, seed, energy=memory)
        return [
            Measurement(
                samples_ms=tuple(samples_ms),
                relative_ci=relative_ci(samples_ms),
                peak_memory_mb=peaks[i].get("mb"),
                protocol=self._protocol(timing, i, seed),
                device=self._device(networks[i].choices),
                environment=timing.environment
                | timing.facts[i]
                | {
                    "memory_method": peaks[i].get("method"),
                    "energy_source": timing.energy[i].get("source"),
                },
                model_size_mb=networks[i].size_mb,
                energy_mj=timing.energy[i].get("mj"),
                loading_memory_mb=peaks[i].get("loading_mb"),
            )
            for i, samples_ms in enumerate(timing.rounds.samples_ms)
        ]

    def outputs(
        self, file: PreparedNetwork | Path, batches: Iterable[ImageArray]
    ) -> Iterator[ImageArray]:
        network = _prepared(file)
        about = str(network.path)
        with self._process() as process, tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            process.ask("start", about=self._runtime_name, **self._start())
            images = Path(name) / "images.npy"
            for number, batch in enumerate(batches):
                if number == 0:
                    _, channels, height, width = batch.shape
                    self._load(process, network, (channels, height, width), "network")
                np.save(images, batch)
                seconds = len(batch) * _LONGEST_INFERENCE_SECONDS
                there = process.send(images, "images")
                answer = process.ask(
                    "outputs", about=about, work_seconds=seconds, index=0, images=there
                )
                made = process.fetch(answer["outputs"], Path(name) / "outputs.npy")
                yield np.load(made, allow_pickle=False)

    def identity(self) -> dict[str, Any]:
        facts = self._hardware() | {"runtime_version": self._version()}
        return self._device({}) | self._protocol_settings() | facts

    def _hardware(self) -> dict[str, Any]:
        if self.here:
            return hardware(self.threads, self._provider)
        return dict(self._described["hardware"])

    def _version(self) -> str:
        return self.runtime.version() if self.here else str(self._described["runtime_version"])

    @cached_property
    def _described(self) -> dict[str, Any]:
        """What another machine says of itself, which is asked once."""
        module, name = type(self.runtime).__module__, self._runtime_name
        arguments: dict[str, Any] = {"module": module, "name": name, "threads": self.threads}
        with self._process() as process:
            answer: dict[str, Any] = process.ask(
                "describe", about=name, provider=self._provider, **arguments
            )
        if answer["hwnas"] != nas.__version__:
            expected = f"expected {nas.__version__}, as here; install the same release there"
            raise DeviceError(f"device {self.label}: got hwnas {answer['hwnas']}, {expected}")
        return answer

    def _device(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        runtime, execution = self.runtime.chosen(self._execution, choices)
        settings = runtime.record() | dataclasses.asdict(execution)
        return {"name": self.label, "runtime": self._runtime_name} | settings

    def _time(
        self,
        networks: Sequence[PreparedNetwork],
        input_shape: tuple[int, int, int],
        seed: int,
        *,
        energy: bool,
    ) -> _Timing:
        with self._process() as process:
            started = process.ask("start", about=self._runtime_name, **self._start())
            environment = {"runtime_version": self._version(), "runtime": self._runtime_name}
            facts = [
                self._load(process, network, input_shape, f"network{i}")
                for i, network in enumerate(networks)
            ]
            process.ask("load_sentinel", about="sentinel")
            about = [*(str(network.path) for network in networks), "sentinel"]
            # The process there takes the lease, and holds it until it ends.
            leased = process.ask("lease", about="lease", work_seconds=math.inf)
            inferences = [self._warm_up(process, i, name) for i, name in enumerate(about)]

            def run_block(index: int) -> float:
                arguments = {"index": index, "inferences": inferences[index]}
                return float(process.ask("block", about=about[index], **arguments)["ms"])

            rounds = run_rounds(run_block, inferences, self, seed=seed)
            quiet_ms = float(np.percentile(rounds.sentinel_ms, QUIET_PERCENTILE))
            after = process.ask("load_average", about="load average")
            environment |= started | leased | after | {"sentinel_ms": quiet_ms}
            spent = [
                self._energy(process, i, about[i]) if energy else {} for i in range(len(networks))
            ]
        return _Timing(rounds, inferences[:-1], environment, facts, spent)

    def _process(self) -> MeasuringProcess:
        return MeasuringProcess(timeout_seconds=self.timeout_seconds)

    def _start(self) -> dict[str, Any]:
        return {
            "module": type(self.runtime).__module__,
            "name": self._runtime_name,
            "settings": dataclasses.asdict(self.runtime),
            "execution": dataclasses.asdict(self._execution),
        }

    def _load(
        self,
        process: MeasuringProcess,
        network: PreparedNetwork,
        input_shape: tuple[int, int, int],
        name: str,
    ) -> dict[str, Any]:
        answer: dict[str, Any] = process.ask(
            "load", about=str(network.path), **_arguments(process, network, input_shape, name)
        )
        return answer

    def _warm_up(self, process: MeasuringProcess, index: int, about: str) -> int:
        seconds = self.warmup_seconds
        arguments: dict[str, Any] = {"index": index, "seconds": seconds, "block_ms": self.block_ms}
        answer = process.ask("warm_up", about=about, work_seconds=seconds, **arguments)
        return int(answer["inferences"])

    def _energy(self, process: MeasuringProcess, index: int, about: str) -> dict[str, Any]:
        seconds = _ENERGY_SECONDS
        arguments: dict[str, Any] = {"index": index, "provider": self._provider}
        answer: dict[str, Any] = process.ask(
            "energy", about=about, work_seconds=seconds, seconds=seconds, **arguments
        )
        return answer

    def _peak(self, network: PreparedNetwork, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        with self._process() as process:
            process.ask("start", about=self._runtime_name, **self._start())
            process.ask("load_sentinel", about="sentinel")
            arguments = _arguments(process, network, input_shape, "network")
            answer: dict[str, Any] = process.ask(
                "peak_memory", about=str(network.path), runs=_MEMORY_RUNS, **arguments
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


def _prepared(file: PreparedNetwork | Path) -> PreparedNetwork:
    network = file if isinstance(file, PreparedNetwork) else PreparedNetwork(file)
    if not network.path.exists():
        raise DeviceError(f"{network.path}: got no such file, expected a network")
    return network


def _arguments(
    process: MeasuringProcess,
    network: PreparedNetwork,
    input_shape: tuple[int, int, int],
    name: str,
) -> dict[str, Any]:
    path = process.send(network.path, name)
    return {"path": path, "input_shape": list(input_shape), "choices": dict(network.choices)}
