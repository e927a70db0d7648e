"""The arena of TensorFlow Lite Micro, planned without converting a network.

TensorFlow Lite Micro keeps the activations of an 8-bit network in one arena, whose size its memory
planner finds before the first inference (David et al., TensorFlow Lite Micro, MLSys 2021, section
4.4). The most bytes alive at once are less than the planner needs only where tensors do not fit
together without gaps. What is alive follows from the operators that LiteRT's converter makes of a
network, which differ from those of PyTorch:

- normalisations and ReLU are part of the layer before, other activations are operators of their
  own, with an output of their own;
- a convolution whose padding is not TensorFlow's `SAME` reads a padded copy of its input, which is
  the rule where the stride is 2;
- an average over positions adds up in 32 bits, in a scratch buffer.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TypeVar

from nas.network.blocks import IntArray
from nas.network.costs import Layer, Step, Trace

ALIGNMENT = 16
"""Bytes to a multiple of which every buffer is rounded up."""

_FUSED = ("relu", "relu6", "batchnorm1d", "batchnorm2d", "identity", "dropout")
_TWICE = ("silu",)
"""Activations that become a sigmoid and a product."""
_AVERAGES = ("adaptiveavgpool2d", "adaptive_avg_pool2d", "mean")
_CONVOLUTION = re.compile(r"(?:conv|depthwise|grouped)(\d+)(?:x(\d+))?(?:d(\d+))?")


_Values = TypeVar("_Values", int, IntArray)


def aligned(values: _Values) -> _Values:
    """Return the bytes of a buffer of so many 8-bit values."""
    return -(-values // ALIGNMENT) * ALIGNMENT


def arena_trace(trace: Trace) -> Trace:
    """Return a trace whose steps are the operators of an 8-bit network in TensorFlow Lite Micro.

    Its values are bytes; `Trace.peak_values` returns the most that are alive at once.
    """
    inputs = len(trace.input_values)
    # Of every tensor of the trace, its position among those of the new steps.
    positions = list(range(inputs))
    steps: list[Step] = []

    def add(reads: tuple[int, ...], values: int, *, shared: bool = False) -> int:
        size = aligned(values)
        steps.append(Step(reads=reads, values=size, works_in_place=shared, is_view=shared))
        return inputs + len(steps) - 1

    for layer, step in zip(trace.layers, trace.steps, strict=True):
        reads = tuple(positions[tensor] for tensor in step.reads)
        if reads and (padded := _padded_values(layer)):
            reads = (add(reads, padded), *reads[1:])
        if layer.kind in _TWICE:
            reads = (*reads, add(reads, step.values))
        if layer.kind in _AVERAGES:
            reads = (*reads, add((), 4 * step.values))
        shared = bool(reads) and (step.is_view or layer.kind in _FUSED)
        positions.append(add(reads, step.values, shared=shared))
    return replace(
        trace,
        input_values=tuple(aligned(values) for values in trace.input_values),
        output=positions[trace.output],
        steps=tuple(steps),
    )


def _padded_values(layer: Layer) -> int:
    """Return the values of the padded copy that a convolution reads; 0 where it reads its input."""
    found = _CONVOLUTION.fullmatch(layer.kind)
    if found is None or len(layer.input_shape) != 3 or len(layer.output_shape) != 3:
        return 0
    dilation = int(found[3] or 1)
    kernels = [dilation * (int(size) - 1) + 1 for size in (found[1], found[2] or found[1])]
    sides = list(zip(layer.input_shape[1:], layer.output_shape[1:], kernels, strict=True))
    if all(_same(*side) for side in sides):
        return 0
    return layer.input_shape[0] * math.prod(side + kernel - 1 for side, _, kernel in sides)


def _same(side: int, output: int, kernel: int) -> bool:
    """Whether a padding of half the kernel on both sides is TensorFlow's, or there is none."""
    least, most = side // output, -(-side // output)
    total = max((output - 1) * most + kernel - side, 0)
    unpadded = any((side - kernel) // max(s, 1) + 1 == output for s in (least, most))
    return total == kernel - 1 or unpadded
