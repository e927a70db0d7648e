"""The kernels that a runtime runs for a block: layers after fusion, and what lies between them.

What ONNX Runtime does on a processor (and other runtimes with it): a normalisation is folded into
the convolution before it; an activation, or the addition of a shortcut, is computed by the
convolution that feeds it; layers that only give a tensor another shape are no call. nn-Meter
(Zhang et al., MobiSys 2021) calls the result the kernels of a network and predicts a latency for
each.

Convolutions work on images whose channels are blocked to the width of a vector (Georganas et al.,
SC 2018; NCHWc in ONNX Runtime), padded where their number is no multiple of it. Layers that cannot
read that order of the values make the runtime put them in order again, which takes as long as a
layer. Equal computations on one tensor are done once, so what several blocks do to their common
input is a kernel of the tensor. `tests/latency_predictors/test_fusion.py` compares with the graphs
that ONNX Runtime makes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from nas.core.measurement import INT8
from nas.network.costs import Layer, Shape, Step, Trace

CONVOLUTIONS = ("conv", "depthwise", "grouped")
NORMALISATION = "batchnorm2d"
ACTIVATIONS = {"relu", "relu6", "hardswish", "hardsigmoid", "sigmoid"}
CLIP = "relu6"
"""An activation that no addition takes in, and that alone cannot read blocked channels."""

SWISH = "silu"
"""An activation that is a kernel of its own, in either order of the values."""

ADDITION = "add"
CONCATENATION = "cat"
POOLS = {"maxpool2d", "avgpool2d"}
REORDERS = {True: "reorder_input", False: "reorder_output"}
"""What brings a tensor into the blocked order, and out of it."""

Origin = tuple[int, str]
"""An input of a block, and what was done to it."""


@dataclass(frozen=True)
class Kernel:
    """One call of the runtime; channels that are padding count in all sizes.

    Attributes:
        kind: Of the layer that it starts with; see `Layer.operation`.
        epilogue: Kinds of the layers that are computed with it.
        blocked: Whether it writes blocked channels.
        macs: Multiply-accumulate operations.
        params: Parameters that it reads.
        input_values: Elements that it reads.
        output_values: Elements that it writes.
        input_channels: Of its first input: the first axis of images, the last of tokens.
        output_channels: The same of its output.
        origin: What it reads, if that is all and it has no parameters: then other blocks that do
            the same to the same tensor share it.
        deployment: Number of the choices of the space's deployment genes.
    """

    kind: str
    epilogue: tuple[str, ...]
    blocked: bool
    macs: int
    params: int
    input_values: int
    output_values: int
    input_channels: int
    output_channels: int
    origin: Origin | None = None
    deployment: int = 0

    @property
    def is_convolution(self) -> bool:
        """Whether it starts with a convolution."""
        return self.kind.startswith(CONVOLUTIONS)


@dataclass(frozen=True)
class Fused:
    """What a runtime makes of a module.

    Attributes:
        kernels: In execution order.
        blocked: Whether the output has blocked channels.
    """

    kernels: tuple[Kernel, ...]
    blocked: bool


@cache
def fuse(trace: Trace, blocked: tuple[bool, ...], width: int) -> Fused:
    """Return the kernels of a module.

    Args:
        trace: Of the module.
        blocked: Of every input, whether its channels are blocked.
        width: Channels of a block; 1 for a runtime that knows none.
    """
    fusion = _Fusion(trace, blocked, width)
    for layer, step in zip(trace.layers, trace.steps, strict=True):
        fusion.add(layer, step)
    return Fused(tuple(fusion.kernels), fusion.tensors[trace.output].blocked)


@dataclass
class _Tensor:
    """A tensor while kernels are made.

    Attributes:
        blocked: Whether it was written with blocked channels.
        origins: Where it is from, if from an input alone, in every order that it exists in.
        host: The kernel that wrote it and may still take in its reader.
    """

    blocked: bool
    origins: dict[bool, Origin | None]
    host: int | None = None


class _Fusion:
    """Makes kernels of layers, one after the other."""

    def __init__(self, trace: Trace, blocked: Sequence[bool], width: int) -> None:
        self.kernels: list[Kernel] = []
        self.tensors = [_Tensor(b, {b: (slot, "")}) for slot, b in enumerate(blocked)]
        self._width = width
        self._readers = Counter(tensor for step in trace.steps for tensor in step.reads)
        self._readers[trace.output] += 1

    def add(self, layer: Layer, step: Step) -> None:
        """Add a layer as a kernel of its own, to a kernel before it, or not at all."""
        read = [self.tensors[tensor] for tensor in step.reads]
        if step.is_view and layer.input_shape == layer.output_shape:
            self.tensors.append(read[0])
            return
        needs, gives = self._orders(layer, read)
        if step.is_view:
            self._bring(read[0], layer, blocked=False)
            self.tensors.append(_Tensor(False, {False: read[0].origins[False]}))
            return
        host = self._host(layer, step, blocked=gives)
        if host is not None:
            if layer.kind != NORMALISATION:
                fused = (*self.kernels[host].epilogue, layer.kind)
                self.kernels[host] = replace(self.kernels[host], epilogue=fused)
            self.tensors.append(_Tensor(gives, {gives: None}, host))
            return
        if layer.kind == CLIP:
            needs = gives = False
        for tensor in read:
            self._bring(tensor, layer, blocked=needs)
        alone = read and all(tensor is read[0] for tensor in read) and layer.params == 0
        self._write(layer, needs, gives, read[0].origins[needs] if alone else None)

    def _orders(self, layer: Layer, read: Sequence[_Tensor]) -> tuple[bool, bool]:
        """Return whether a layer reads blocked channels, and whether it writes them."""
        images = len(layer.output_shape) == len(layer.input_shape) == 3
        if self._width == 1 or not images or layer.precision == INT8:
            return False, False  # in 8 bits, too, channels are in their order
        channels = (layer.input_shape[0], layer.output_shape[0])
        aligned = not any(count % self._width for count in channels)
        if layer.kind.startswith("conv"):
            # Convolutions of a few channels, such as an image's, read them as they are.
            return channels[0] >= self._width, True
        if layer.kind.startswith("depthwise"):
            return True, True
        if layer.kind.startswith("grouped") or layer.kind in POOLS:
            return aligned, aligned
        everything = all(tensor.blocked for tensor in read)
        if layer.kind == CONCATENATION:
            return everything and aligned, everything and aligned
        if layer.kind in ACTIVATIONS or layer.kind in (SWISH, NORMALISATION, ADDITION):
            return everything, everything
        return False, False

    def _host(self, layer: Layer, step: Step, *, blocked: bool) -> int | None:
        """Return the kernel that computes the layer as well."""
        hosts = [
            host
            for tensor in step.reads
            if (host := self.tensors[tensor].host) is not None
            and self._readers[tensor] == 1
            and self.kernels[host].blocked == blocked
        ]
        return next((host for host in reversed(hosts) if _takes(self.kernels[host], layer)), None)

    def _bring(self, tensor: _Tensor, layer: Layer, *, blocked: bool) -> None:
        """Put a tensor's values in the order that a layer reads, unless that was done before."""
        if blocked in tensor.origins:
            return
        shape = layer.input_shape
        origin = tensor.origins[tensor.blocked]
        values, kind = math.prod(shape), REORDERS[blocked]
        padded = values * self._channels(shape, blocked=True) // shape[0]
        self.kernels.append(
            Kernel(
                kind=kind,
                epilogue=(),
                blocked=blocked,
                macs=0,
                params=0,
                input_values=values if blocked else padded,
                output_values=padded if blocked else values,
                input_channels=self._channels(shape, blocked=not blocked),
                output_channels=self._channels(shape, blocked=blocked),
                origin=origin,
            )
        )
        tensor.origins[blocked] = _after(origin, kind)

    def _write(self, layer: Layer, needs: bool, gives: bool, origin: Origin | None) -> None:
        before = self._channels(layer.input_shape, blocked=needs)
        after = self._channels(layer.output_shape, blocked=gives)
        wider = before / _channels(layer.input_shape), after / _channels(layer.output_shape)
        dense = wider[1] if layer.kind.startswith("depthwise") else wider[0] * wider[1]
        kernel = Kernel(
            kind=layer.operation,
            epilogue=(),
            blocked=gives,
            macs=round(layer.macs * dense),
            params=round(layer.params * dense),
            input_values=round(layer.input_values * wider[0]),
            output_values=round(layer.output_values * wider[1]),
            input_channels=before,
            output_channels=after,
            origin=origin,
        )
        # A normalisation of blocked channels is run as a convolution.
        hosts = kernel.is_convolution or (gives and layer.kind == NORMALISATION)
        host = len(self.kernels) if hosts else None
        self.kernels.append(kernel)
        self.tensors.append(_Tensor(gives, {gives: _after(origin, layer.kind)}, host))

    def _channels(self, shape: Shape, *, blocked: bool) -> int:
        channels = _channels(shape)
        return -(-channels // self._width) * self._width if blocked else channels


def _takes(kernel: Kernel, layer: Layer) -> bool:
    """Return whether a convolution computes the layer behind it as well."""
    activated = any(kind in ACTIVATIONS for kind in kernel.epilogue)
    if layer.kind in (NORMALISATION, ADDITION, CLIP):
        return not kernel.epilogue
    return layer.kind in ACTIVATIONS and not activated


def _after(origin: Origin | None, kind: str) -> Origin | None:
    return None if origin is None else (origin[0], f"{origin[1]} {kind}")


def _channels(shape: Shape) -> int:
    return 1 if not shape else shape[0] if len(shape) == 3 else shape[-1]
