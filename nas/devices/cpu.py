"""The processor of this machine, with ONNX Runtime."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import ConfigError, DeviceError, ExportError
from nas.core.lease import measuring
from nas.core.measurement import QUIET_PERCENTILE, Device, ImageArray, Measurement
from nas.devices import register
from nas.devices.measuring.environment import cpu_model, describe_host, load_average
from nas.devices.measuring.process import MeasuringProcess
from nas.devices.measuring.protocol import ProtocolSettings, Rounds, relative_ci, run_rounds
from nas.devices.measuring.sentinel import SHAPE as SENTINEL_SHAPE
from nas.devices.measuring.sentinel import write_sentinel

if TYPE_CHECKING:
    from torch import nn

_OPTIMIZATIONS = ("disable", "basic", "extended", "all")
_MEMORY_RUNS = 10
_SAMPLE = "median ms per inference of one block, its first inference not counted"
_INTERVAL = "95 %, order statistics of the samples"
_INPUT = "standard normal float32, seed 0, bound"


@dataclass(frozen=True)
class _Timing:
    rounds: Rounds
    inferences: list[int]
    environment: dict[str, Any]


@register("cpu")
@dataclass(frozen=True, kw_only=True)
class Cpu(ProtocolSettings, Device):
    """Runs networks in ONNX Runtime on this machine's processor, in a process of their own.

    Attributes:
        threads: Threads that work on one operator.
        allow_spinning: Whether ONNX Runtime's idle threads wait busily.
        graph_optimization: ONNX Runtime's level: `disable`, `basic`, `extended` or `all`.
        precision: Of the weights and activations; `fp32`.
        timeout_seconds: How long the measuring process may stay silent, beyond the work that it
            was asked for, before it is taken for hung.
    """

    threads: int = 1
    allow_spinning: bool = False
    graph_optimization: str = "all"
    precision: str = "fp32"
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of its range.
        """
        super().__post_init__()
        if self.threads < 1:
            raise ConfigError("device.threads", self.threads, "1 or more")
        if self.graph_optimization not in _OPTIMIZATIONS:
            expected = "one of " + ", ".join(_OPTIMIZATIONS)
            raise ConfigError("device.graph_optimization", self.graph_optimization, expected)
        if self.precision != "fp32":
            raise ConfigError("device.precision", self.precision, "'fp32'")
        if not self.timeout_seconds > 0:
            raise ConfigError("device.timeout_seconds", self.timeout_seconds, "a number above 0")

    def prepare(
        self,
        models: Sequence[nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[Path]:
        """Convert networks to ONNX; see `Device.prepare`."""
        del images
        return [_onnx_file(m, input_shape, folder, i) for i, m in enumerate(models)]

    def measure_files(
        self,
        files: Sequence[Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        """Time ONNX files, interleaved; see `Device.measure_files`.

        Networks are loaded first; then the host's lease is waited for, and all warming up and
        timing happens under it. Memory is measured before, in one new process a network: it does
        not depend on what else the host does.
        """
        if not files:
            return []
        if seconds_per_model is not None:
            limited = dataclasses.replace(self, max_seconds_per_model=seconds_per_model)
            return limited.measure_files(files, input_shape, memory=memory, seed=seed)
        with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            sentinel = write_sentinel(Path(name) / "sentinel.onnx")
            peaks = [self._peak(p, input_shape, sentinel) if memory else {} for p in files]
            timing = self._time(files, input_shape, sentinel, seed)
        return [
            Measurement(
                samples_ms=tuple(samples_ms),
                relative_ci=relative_ci(samples_ms),
                peak_memory_mb=peak.get("mb"),
                protocol=self._protocol(timing, seed) | {"inferences_per_block": inferences},
                device=self._device(),
                environment=timing.environment | {"memory_method": peak.get("method")},
            )
            for samples_ms, inferences, peak in zip(
                timing.rounds.samples_ms, timing.inferences, peaks, strict=True
            )
        ]

    def identity(self) -> dict[str, Any]:
        """Return settings, processor and runtime; see `Device.identity`."""
        host = {"cpu_model": cpu_model(), "logical_cores": os.cpu_count()}
        return dataclasses.asdict(self) | host | {"onnxruntime": version("onnxruntime")}

    def _time(
        self, paths: Sequence[Path], input_shape: tuple[int, int, int], sentinel: Path, seed: int
    ) -> _Timing:
        with MeasuringProcess(timeout_seconds=self.timeout_seconds) as process:
            runtime = process.ask("describe", about="start")
            for path in paths:
                runtime |= self._load(process, path, input_shape)
            self._load(process, sentinel, SENTINEL_SHAPE)
            files = [*paths, sentinel]
            with measuring():
                environment = describe_host() | runtime | {"load_before": load_average()}
                inferences = [self._warm_up(process, i, p) for i, p in enumerate(files)]

                def run_block(index: int) -> float:
                    arguments = {"index": index, "inferences": inferences[index]}
                    return float(process.ask("block", about=str(files[index]), **arguments)["ms"])

                rounds = run_rounds(run_block, inferences, self, seed=seed)
                environment["load_after"] = load_average()
        return _Timing(rounds, inferences[:-1], environment)

    def _load(
        self, process: MeasuringProcess, path: Path, input_shape: tuple[int, int, int]
    ) -> dict[str, Any]:
        answer: dict[str, Any] = process.ask(
            "load", about=str(path), **self._arguments(path, input_shape)
        )
        return answer

    def _warm_up(self, process: MeasuringProcess, index: int, path: Path) -> int:
        seconds, block_ms = self.warmup_seconds, self.block_ms
        arguments = {"index": index, "seconds": seconds, "block_ms": block_ms}
        answer = process.ask("warm_up", about=str(path), work_seconds=seconds, **arguments)
        return int(answer["inferences"])

    def _peak(self, path: Path, input_shape: tuple[int, int, int], trivial: Path) -> dict[str, Any]:
        with MeasuringProcess(timeout_seconds=self.timeout_seconds) as process:
            self._load(process, trivial, SENTINEL_SHAPE)
            arguments = self._arguments(path, input_shape) | {"runs": _MEMORY_RUNS}
            answer: dict[str, Any] = process.ask("peak_memory", about=str(path), **arguments)
        return answer

    def _arguments(self, path: Path, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        names = ("threads", "allow_spinning", "graph_optimization")
        session = {name: getattr(self, name) for name in names}
        return {"path": str(path), "input_shape": [1, *input_shape], "session": session}

    def _device(self) -> dict[str, Any]:
        names = ("threads", "allow_spinning", "graph_optimization", "precision")
        settings = {name: getattr(self, name) for name in names}
        return {"name": "cpu", "execution_mode": "sequential"} | settings

    def _protocol(self, timing: _Timing, seed: int) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(ProtocolSettings)]
        return {name: getattr(self, name) for name in names} | {
            "sample": _SAMPLE,
            "latency_percentile": QUIET_PERCENTILE,
            "interval": _INTERVAL,
            "input": _INPUT,
            "seed": seed,
            "networks": len(timing.inferences),
            "rounds": timing.rounds.kept,
            "rounds_repeated": timing.rounds.repeated,
        }


def _onnx_file(
    model: nn.Module | Path, input_shape: tuple[int, int, int], folder: Path, index: int
) -> Path:
    if isinstance(model, Path):
        if not model.is_file():
            raise DeviceError(f"{model}: got no such file, expected an ONNX file")
        return model
    # PyTorch takes seconds to load, which timing an ONNX file need not wait for.
    from nas.network.onnx import export_onnx

    try:
        return export_onnx(model, input_shape, folder / f"{index}.onnx")
    except ExportError as error:
        raise DeviceError(f"network {index}: {error}") from error
