"""The processor of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.devices import register
from nas.devices.measuring.local import LocalDevice


@register("cpu")
@dataclass(frozen=True, kw_only=True)
class Cpu(LocalDevice):
    """The processor of this machine.

    See `LocalDevice` for the settings.
    """

    label: ClassVar[str] = "cpu"
