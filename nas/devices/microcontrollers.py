"""Microcontrollers: memory, flash and time by the estimates of tools, without the hardware.

Nothing here is measured. A network in 8 bits runs in TensorFlow Lite Micro on this machine, whose
allocator says how much memory it takes on a microcontroller; Arm's compiler Vela says how long an
Ethos-U accelerator works on it. Both say the same every time.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.core.errors import ConfigError, DeviceError, ExportError, last_lines
from nas.core.files import temporary_folder
from nas.core.host import child_environment
from nas.core.measurement import (
    INT8,
    KILOBYTE,
    Deployable,
    Device,
    ImageArray,
    Measurement,
    PreparedNetwork,
)
from nas.devices import register, registry, tflm
from nas.devices.measuring.runtime import installed_version

if TYPE_CHECKING:
    from torch import nn

_VELA_SECONDS = 600.0
_FAMILIES = ("u55", "u65", "u85")
_ON_PROCESSOR = re.compile(r"CPU operators = (\d+)")
_REFUSED = re.compile(r"Warning \(supported operators\) operator: (\w+)")


@dataclass(frozen=True, kw_only=True)
class Microcontroller(Device):
    """A device whose numbers a tool estimates.

    Attributes:
        code_kb: Flash that code takes beside the network, in 1024 bytes: TensorFlow Lite Micro, its
            kernels and the program around them. It depends on the toolchain; set your own.
    """

    tool: ClassVar[str]

    code_kb: float = 100.0

    def __post_init__(self) -> None:
        if not self.code_kb >= 0:
            raise ConfigError("device.code_kb", self.code_kb, "0 or more")

    @property
    def takes_onnx(self) -> bool:
        return False

    def quantises(self, choices: Mapping[str, Any]) -> bool:
        del choices
        return True

    def prepare(
        self,
        models: Sequence[Deployable | nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[PreparedNetwork]:
        from nas.devices.runtimes.litert import convert

        prepared = []
        for index, model in enumerate(models):
            given = model if isinstance(model, Deployable) else Deployable(model)
            about = f"network {index}"
            for name, value in given.choices.items():
                if (name, value) != ("precision", INT8):
                    expected = f"precision {INT8} or no choice on a microcontroller"
                    raise DeviceError(
                        f"{about}: choice {name!r}: got {value!r}, expected {expected}"
                    )
            path = given.network
            if not isinstance(path, Path):
                to = folder / f"{index}.tflite"
                try:
                    path = convert(path, input_shape, to, images, int8=True, integers=True)
                except ExportError as error:
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
        """Estimate what prepared networks take; see `Device.measure_files`.

        Nothing is timed, so that order and time do not matter, and memory is always known.
        """
        del memory, seed, seconds_per_model
        return [self._estimate(_tflite(file), input_shape) for file in files]

    def outputs(
        self, file: PreparedNetwork | Path, batches: Iterable[ImageArray]
    ) -> Iterator[ImageArray]:
        """Run a network in TensorFlow Lite Micro; see `Device.outputs`."""
        network = _tflite(file)
        return (tflm.outputs(network.path, batch) for batch in batches)

    def identity(self) -> dict[str, Any]:
        from nas.devices.runtimes.litert import CONVERTER

        name = registry.name_of(type(self))
        settings = dataclasses.asdict(self)
        return {"name": name, **settings, **self._versions(), "converter": " ".join(CONVERTER)}

    @abstractmethod
    def _versions(self) -> dict[str, str]:
        """Return the versions of the tools.

        Raises:
            DeviceError: One is not installed.
        """

    @abstractmethod
    def _estimate(self, network: PreparedNetwork, input_shape: tuple[int, int, int]) -> Measurement:
        """Ask the tool about one network."""

    def _said(
        self,
        network: PreparedNetwork,
        sram_bytes: float,
        flash_bytes: float,
        environment: Mapping[str, Any],
        **more: Any,
    ) -> Measurement:
        """Return what a tool has said of a network; further fields of a measurement in `more`."""
        return Measurement(
            **{"samples_ms": (), "loading_memory_mb": 0.0, **more},
            relative_ci=0.0,
            peak_memory_mb=sram_bytes / 1e6,
            flash_mb=(flash_bytes + KILOBYTE * self.code_kb) / 1e6,
            protocol=dict(self.estimated),
            device=self.identity(),
            environment=dict(environment),
            model_size_mb=network.size_mb,
            estimated_by=f"{self.tool} {next(iter(self._versions().values()))}",
        )


@register("mcu")
@dataclass(frozen=True, kw_only=True)
class Mcu(Microcontroller):
    """A microcontroller that runs 8-bit networks in TensorFlow Lite Micro; estimated, no time.

    Attributes:
        code_kb: See `Microcontroller`.
    """

    tool: ClassVar[str] = "tflite-micro"

    @property
    def estimated(self) -> Mapping[str, str]:
        return {
            "sram_kb": "arena, as TensorFlow Lite Micro's recording allocator has it on this "
            "machine, with pointers of 64 bits; without stack and the program's own memory",
            "flash_kb": f"file of the network, and {self.code_kb:g} KB that the code is taken for",
        }

    def _versions(self) -> dict[str, str]:
        return {"tflite_micro": tflm.version()}

    def _estimate(self, network: PreparedNetwork, input_shape: tuple[int, int, int]) -> Measurement:
        arena = tflm.arena(network.path, input_shape)
        return self._said(
            network,
            arena.head_bytes + arena.tail_bytes,
            1e6 * network.size_mb,
            {"arena_head_bytes": arena.head_bytes, "arena_tail_bytes": arena.tail_bytes},
            loading_memory_mb=arena.tail_bytes / 1e6,
        )


@register("ethos_u")
@dataclass(frozen=True, kw_only=True)
class EthosU(Microcontroller):
    """An Arm Ethos-U accelerator beside a microcontroller; estimated by Arm's compiler Vela.

    Attributes:
        code_kb: See `Microcontroller`.
        accelerator: Of Vela: `ethos-u55-32` to `-256`, `ethos-u65-256`, `-512`, `ethos-u85-128` to
            `-2048`; the last number is that of its multiply-accumulate units.
        system_config: Clock and memories, named in `config`: `Ethos_U55_High_End_Embedded`,
            `Ethos_U65_Embedded`, `Ethos_U85_SYS_Flash_High`, ...
        memory_mode: What lies in which memory, named in `config`: `Sram_Only`, `Shared_Sram`,
            `Dedicated_Sram`, ...
        config: Vela's file of both, its own or that of a board.
    """

    tool: ClassVar[str] = "vela"

    accelerator: str = "ethos-u55-128"
    system_config: str = "Ethos_U55_High_End_Embedded"
    memory_mode: str = "Shared_Sram"
    config: str = "Arm/vela.ini"

    def __post_init__(self) -> None:
        super().__post_init__()
        family = self.accelerator.removeprefix("ethos-")[:3]
        if family not in _FAMILIES:
            expected = "ethos-uXX-N, such as ethos-u55-128, ethos-u65-256 or ethos-u85-256"
            raise ConfigError("device.accelerator", self.accelerator, expected)
        own = f"Ethos_{family.upper()}_"
        if self.config == EthosU.config and not self.system_config.startswith(own):
            expected = f"one of {self.config} that begins with {own}, as the accelerator does"
            raise ConfigError("device.system_config", self.system_config, expected)

    @property
    def estimated(self) -> Mapping[str, str]:
        by = f"as Vela says of {self.accelerator}, {self.system_config}, {self.memory_mode}"
        return {
            "latency_ms": f"time of the accelerator, {by}",
            "sram_kb": f"SRAM of the accelerator's tensors, {by}; without the memory that "
            "TensorFlow Lite Micro takes to call it",
            "flash_kb": f"file that Vela has compiled, and {self.code_kb:g} KB that the code is "
            "taken for",
        }

    def _versions(self) -> dict[str, str]:
        return {"ethosu": installed_version("ethosu", tflm.EXTRA), "tflite_micro": tflm.version()}

    def _estimate(self, network: PreparedNetwork, input_shape: tuple[int, int, int]) -> Measurement:
        del input_shape
        with temporary_folder() as folder:
            said = self._compile(network.path, folder)
            (file,), (summary,) = folder.glob("*.tflite"), folder.glob("*_summary_*.csv")
            with summary.open(newline="") as lines:
                (row,) = csv.DictReader(lines)
            flash_bytes = file.stat().st_size
        on_processor = _ON_PROCESSOR.search(said)
        if on_processor is None or int(on_processor[1]):
            names = ", ".join(sorted(set(_REFUSED.findall(said)))) or "operators"
            raise DeviceError(
                f"{network.path}: {names} would run on the processor, whose time Vela does not "
                "tell; expected nothing there, leave it out of the search space"
            )
        figures = {name: _number(value) for name, value in row.items()}
        return self._said(
            network,
            KILOBYTE * float(row["sram_memory_used"]),
            flash_bytes,
            figures,
            samples_ms=(1e3 * float(row["inference_time"]),),
        )

    def _compile(self, path: Path, folder: Path) -> str:
        """Compile a network into a folder; return what Vela prints.

        Raises:
            DeviceError: It cannot be compiled.
        """
        self._versions()
        options = {
            "--accelerator-config": self.accelerator,
            "--system-config": self.system_config,
            "--memory-mode": self.memory_mode,
            "--config": self.config,
            "--output-dir": str(folder),
        }
        done = subprocess.run(
            [sys.executable, "-m", "ethosu.vela", *(x for o in options.items() for x in o), path],
            capture_output=True,
            text=True,
            errors="replace",
            env=child_environment(),
            timeout=_VELA_SECONDS,
            check=False,
        )
        if done.returncode:
            said = last_lines(done.stdout + done.stderr) or f"exit {done.returncode}"
            raise DeviceError(f"{path}: Vela cannot compile it ({said[:300]})")
        return done.stdout + done.stderr


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _tflite(file: PreparedNetwork | Path) -> PreparedNetwork:
    network = file if isinstance(file, PreparedNetwork) else PreparedNetwork(file)
    if network.path.suffix != ".tflite" or not network.path.is_file():
        raise DeviceError(
            f"{network.path}: expected a network in 8 bits as a .tflite file, or as an nn.Module, "
            "which is converted"
        )
    return network
