"""An accelerator of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nas.devices import register
from nas.devices.measuring.energy import gpu_name
from nas.devices.measuring.local import LocalDevice


@register("gpu")
@dataclass(frozen=True, kw_only=True)
class Gpu(LocalDevice):
    """A GPU or another accelerator of this machine.

    See `LocalDevice` for the settings. An inference is timed from the input in the host's memory
    to the output there.

    Attributes:
        provider: Of ONNX Runtime: `cuda`, `tensorrt`, `coreml`, `qnn`, ...; or the plugin `gpu` or
            `npu` of OpenVINO.
    """

    label: ClassVar[str] = "gpu"

    provider: str | None = "cuda"

    def _hardware(self) -> dict[str, Any]:
        return super()._hardware() | {"gpu": gpu_name()}
