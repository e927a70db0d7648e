"""What all devices that measure have in common: a runtime, timed in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import nas
from nas.core.errors import ConfigError, DeviceError, ExportError
from nas.core.host import NOTICE_S
from nas.core.measurement import (
    QUIET_PERCENTILE,
    Deployable,
    Device,
    ImageArray,
    Measurement,
    PreparedNetwork,
)
from nas.core.registry import nested
from nas.devices import registry, runtimes
from nas.devices.measuring.environment import hardware
from nas.devices.measuring.process import MeasuringProcess
from nas.devices.measuring.protocol import ProtocolSettings, relative_ci, run_rounds
from nas.devices.measuring.runtime import Execution, Runtime
from nas.devices.measuring.worker import decoded, encoded

if TYPE_CHECKING:
    from torch import nn

_MEMORY_RUNS = 10
_LONGEST_INFERENCE_SECONDS = 10.0
_PORTION_BYTES = 4_000_000
"""Of images that are sent to the process at a time."""
_ENERGY_SECONDS = 1.0
"""RAPL's counters move every millisecond, NVML's every tenth of a second."""
_SAMPLE = "median ms per inference of one block, its first inference not counted"
_INTERVAL = "95 %, order statistics of the samples"
_INPUT = "standard normal float32, seed 0, in place before the run"


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

    here: ClassVar[bool] = True
    """Whether the process runs on this machine."""

    runtime: Runtime = nested(runtimes.registry, "onnxruntime")
    threads: int = 1
    precision: str = "fp32"
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.timeout_seconds > 0:
            raise ConfigError("device.timeout_seconds", self.timeout_seconds, "a number above 0")
        self.runtime.check(self._execution)

    @property
    def _execution(self) -> Execution:
        return Execution(threads=self.threads, precision=self.precision)

    @property
    def _name(self) -> str:
        return registry.name_of(type(self))

    @property
    def _runtime_name(self) -> str:
        return runtimes.registry.name_of(type(self.runtime))

    @property
    def _provider(self) -> str:
        return str(self.runtime.record().get("provider", "cpu"))

    @property
    def takes_onnx(self) -> bool:
        return self.runtime.takes_onnx

    def quantises(self, choices: Mapping[str, Any]) -> bool:
        return self.runtime.chosen(self._execution, choices)[1].quantises

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
                if isinstance(network, Path) and network.suffix == f".{runtime.takes}" != ".onnx":
                    path = network  # which is in the runtime's own form
                else:
                    stem = folder / str(index)
                    path = runtime.prepare(network, input_shape, stem, images, execution)
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
        return self._time(networks, input_shape, seed, peaks)

    def outputs(
        self, file: PreparedNetwork | Path, batches: Iterable[ImageArray]
    ) -> Iterator[ImageArray]:
        network = _prepared(file)
        about, loaded = str(network.path), False
        with self._started() as process:
            for batch in batches:
                if not loaded:
                    self._load(process, network, batch.shape[1:], "network")
                    loaded = True
                outputs = []
                portions = min(math.ceil(batch.nbytes / _PORTION_BYTES), len(batch))
                for part in np.array_split(batch, portions):
                    seconds = len(part) * _LONGEST_INFERENCE_SECONDS
                    answer = process.ask(
                        "run", about=about, work_seconds=seconds, index=0, images=encoded(part)
                    )
                    outputs.append(decoded(answer["outputs"]))
                yield np.concatenate(outputs)

    def identity(self) -> dict[str, Any]:
        if self.here:
            machine = hardware(self.threads, self._provider)
        else:
            machine = self._described["hardware"]
        version = {"runtime_version": self._version()}
        return self._device({}) | self._protocol_settings() | machine | version

    def _version(self) -> str:
        return self.runtime.version() if self.here else str(self._described["runtime_version"])

    @cached_property
    def _described(self) -> dict[str, Any]:
        """What another machine says of itself, which is asked once."""
        name = self._runtime_name
        with self._process() as process:
            answer = process.ask(
                "describe",
                about=name,
                module=type(self.runtime).__module__,
                name=name,
                threads=self.threads,
                provider=self._provider,
            )
        if answer["hwnas"] != nas.__version__:
            expected = f"expected {nas.__version__}, as here; install the same release there"
            raise DeviceError(f"device {self._name}: got hwnas {answer['hwnas']}, {expected}")
        return answer

    def _device(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        runtime, execution = self.runtime.chosen(self._execution, choices)
        settings = runtime.record() | dataclasses.asdict(execution)
        if layers := settings.pop("layers"):
            settings["layers"] = list(layers)
        return {"name": self._name, "runtime": self._runtime_name} | settings

    def _process(self) -> MeasuringProcess:
        return MeasuringProcess(timeout_seconds=self.timeout_seconds)

    @contextlib.contextmanager
    def _started(self) -> Iterator[MeasuringProcess]:
        """Run a process that has the runtime."""
        with self._process() as process:
            process.ask(
                "start",
                about=self._runtime_name,
                module=type(self.runtime).__module__,
                name=self._runtime_name,
                settings=dataclasses.asdict(self.runtime),
                execution=dataclasses.asdict(self._execution),
            )
            yield process

    def _time(
        self,
        networks: Sequence[PreparedNetwork],
        input_shape: tuple[int, int, int],
        seed: int,
        peaks: Sequence[Mapping[str, Any]],
    ) -> list[Measurement]:
        """Time networks whose peak memory is known, or is not asked for, and then nor is energy."""
        about = [*(str(network.path) for network in networks), "sentinel"]
        with self._started() as process:
            facts = [
                self._load(process, network, input_shape, f"network{i}")
                for i, network in enumerate(networks)
            ]
            process.ask("load_sentinel", about="sentinel")
            # The process there takes the lease, and holds it until it ends.
            environment = process.ask("lease", about="lease", work_seconds=NOTICE_S)
            inferences: list[int] = [
                process.ask(
                    "warm_up",
                    about=name,
                    work_seconds=self.warmup_seconds,
                    index=i,
                    seconds=self.warmup_seconds,
                    block_ms=self.block_ms,
                )["inferences"]
                for i, name in enumerate(about)
            ]

            def run_block(index: int) -> float:
                answer = process.ask(
                    "block", about=about[index], index=index, inferences=inferences[index]
                )
                return float(answer["ms"])

            rounds = run_rounds(run_block, inferences, self, seed=seed)
            environment |= process.ask("load_average", about="load average")
            energy = [
                process.ask(
                    "energy",
                    about=about[i],
                    work_seconds=_ENERGY_SECONDS,
                    index=i,
                    seconds=_ENERGY_SECONDS,
                    provider=self._provider,
                )
                if peak
                else {}
                for i, peak in enumerate(peaks)
            ]
        environment |= {
            "runtime": self._runtime_name,
            "runtime_version": self._version(),
            "sentinel_ms": float(np.percentile(rounds.sentinel_ms, QUIET_PERCENTILE)),
        }
        protocol = self._protocol_settings() | {
            "sample": _SAMPLE,
            "latency_percentile": QUIET_PERCENTILE,
            "interval": _INTERVAL,
            "input": _INPUT,
            "seed": seed,
            "networks": len(networks),
            "rounds": rounds.kept,
            "rounds_repeated": rounds.repeated,
        }
        return [
            Measurement(
                samples_ms=tuple(samples_ms),
                relative_ci=relative_ci(samples_ms),
                peak_memory_mb=peaks[i].get("mb"),
                protocol={**protocol, "inferences_per_block": inferences[i]},
                device=self._device(networks[i].choices),
                environment={
                    **environment,
                    **facts[i],
                    "memory_method": peaks[i].get("method"),
                    "energy_source": energy[i].get("source"),
                },
                model_size_mb=networks[i].size_mb,
                energy_mj=energy[i].get("mj"),
                loading_memory_mb=peaks[i].get("loading_mb"),
            )
            for i, samples_ms in enumerate(rounds.samples_ms)
        ]

    def _load(
        self,
        process: MeasuringProcess,
        network: PreparedNetwork,
        input_shape: Sequence[int],
        name: str,
        op: str = "load",
        **arguments: Any,
    ) -> dict[str, Any]:
        """Send a network to the process, which loads it."""
        return process.ask(
            op,
            about=str(network.path),
            path=process.send(network.path, name),
            input_shape=list(input_shape),
            choices=dict(network.choices),
            **arguments,
        )

    def _peak(self, network: PreparedNetwork, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        with self._started() as process:
            process.ask("load_sentinel", about="sentinel")
            return self._load(
                process, network, input_shape, "network", "peak_memory", runs=_MEMORY_RUNS
            )

    def _protocol_settings(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(ProtocolSettings)]
        return {name: getattr(self, name) for name in names}


def _prepared(file: PreparedNetwork | Path) -> PreparedNetwork:
    network = file if isinstance(file, PreparedNetwork) else PreparedNetwork(file)
    if not network.path.exists():
        raise DeviceError(f"{network.path}: got no such file, expected a network")
    return network
