"""A latency for each kernel that the runtime runs, after its fusion of layers.

In the manner of nn-Meter (Zhang et al., MobiSys 2021), but learned from whole networks only: see
`latency_predictors.calibration.process`.
"""

from __future__ import annotations

from dataclasses import dataclass

from latency_predictors import register
from latency_predictors.calibration.parts import kernels
from latency_predictors.calibration.summed import PartsSettings

BLOCK_WIDTHS = (1, 8, 16)
"""Channels of a block in the layouts of ONNX Runtime: none, 8 with AVX, 16 with AVX-512; the one
that explains the samples best is taken."""


@register("kernels")
@dataclass(frozen=True, kw_only=True)
class KernelSettings(PartsSettings):
    """Settings of the kernel model; see `PartsSettings`."""

    registered = "kernels"
    table = staticmethod(kernels)
    widths = BLOCK_WIDTHS
