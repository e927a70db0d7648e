"""The devices of a machine: of this one, or of one on which a command starts programs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import ClassVar

from nas.core.errors import ConfigError
from nas.core.registry import nested
from nas.devices import register, runtimes
from nas.devices.measuring.device import ProcessDevice
from nas.devices.measuring.process import WORKER, MeasuringProcess
from nas.devices.measuring.runtime import Runtime


@register("cpu")
@dataclass(frozen=True, kw_only=True)
class Cpu(ProcessDevice):
    """The processor of this machine.

    See `ProcessDevice` for the settings.
    """


@register("gpu")
@dataclass(frozen=True, kw_only=True)
class Gpu(ProcessDevice):
    """A GPU or another accelerator of this machine.

    See `ProcessDevice` for the settings. An inference is timed from the input in the host's memory
    to the output there.

    Attributes:
        runtime: ONNX Runtime with the provider `cuda`, `tensorrt`, `coreml`, `qnn`, ...; or
            OpenVINO with the plugin `gpu` or `npu`.
    """

    runtime: Runtime = nested(runtimes.registry, "onnxruntime", provider="cuda")


@register("remote")
@dataclass(frozen=True, kw_only=True)
class RemoteDevice(ProcessDevice):
    """Another machine that a command such as `ssh` runs programs on.

    Networks are prepared here, sent through the command's standard input, and measured there. That
    machine needs `pip install 'hwnas[agent]'` and the runtime, and nothing that listens.

    Attributes:
        command: Starts a program there, with standard input and output connected:
            `ssh pi@board`, `docker exec -i NAME`, `adb shell`.
        python: The Python there that has `hwnas`.
    """

    here: ClassVar[bool] = False

    command: str
    python: str = "python3"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("command", "python"):
            if not _words(getattr(self, name)):
                got, expected = getattr(self, name), "a command such as 'ssh pi@board'"
                raise ConfigError(f"device.{name}", got, expected)

    def _process(self) -> MeasuringProcess:
        command = [*_words(self.command), *_words(self.python), "-m", WORKER]
        return MeasuringProcess(
            timeout_seconds=self.timeout_seconds, command=command, place=self.command
        )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quotation mark is missing
        return []
