"""The devices of this machine: its processor, and an accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.core.registry import nested
from nas.devices import register, runtimes
from nas.devices.measuring.device import ProcessDevice
from nas.devices.measuring.runtime import Runtime


@register("cpu")
@dataclass(frozen=True, kw_only=True)
class Cpu(ProcessDevice):
    """The processor of this machine.

    See `ProcessDevice` for the settings.
    """

    label: ClassVar[str] = "cpu"


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

    label: ClassVar[str] = "gpu"

    runtime: Runtime = nested(runtimes.registry, "onnxruntime", provider="cuda")
